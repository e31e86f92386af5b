"""The tasks there are."""

from importlib import import_module
from typing import TYPE_CHECKING

from visionlora.errors import InputError, did_you_mean, some

if TYPE_CHECKING:
    from visionlora.sections import RunConfig
    from visionlora.tasks.base import Task

TASKS: "dict[str, str | Task]" = {
    "classification": "visionlora.tasks.classification",
    "detection": "visionlora.tasks.detection",
    "segmentation": "visionlora.tasks.segmentation",
}
"""By the config's key ``task``; the first is what a config without one is.

In the place of a task may stand its folder, whose ``config.SCHEMA`` and ``task.TASK`` are imported when they are asked
for: torch takes seconds, and a config is checked before.
"""


def register(name: str, task: "Task") -> None:
    """Make a task known to every command. InputError if there is one of that name."""
    if name in TASKS:
        raise InputError(f"there is a task '{name}' already; give another name")
    TASKS[name] = task


def task_of(name: object, where: str = "") -> "Task":
    """The task of that name; an InputError, which begins with ``where``, names those that there are."""
    known = _known(name, where)
    if isinstance(known, str):
        task: Task = import_module(f"{known}.task").TASK
        TASKS[str(name)] = task
        return task
    return known


def schema_of(name: object, where: str = "") -> "type[RunConfig]":
    """The schema of the configs of a task, without the task itself."""
    known = _known(name, where)
    schema: type[RunConfig] = import_module(f"{known}.config").SCHEMA if isinstance(known, str) else known.SCHEMA
    return schema


def _known(name: object, where: str) -> "str | Task":
    if not isinstance(name, str) or name not in TASKS:
        given = f"'{name}'{did_you_mean(name, TASKS)}" if isinstance(name, str) else "no name"
        raise InputError(f"{where}{': ' * bool(where)}task is {given}; there are {some(TASKS)}")
    return TASKS[name]
