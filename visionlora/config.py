"""A run's config: YAML with dotted overrides, checked by the schema of its task."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from visionlora.config_errors import explain, sections_of
from visionlora.errors import InputError, shown
from visionlora.plain_yaml import read_yaml
from visionlora.sections import RunConfig
from visionlora.tasks.registry import TASKS, schema_of


def load_config(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """Read a YAML file, apply overrides such as ``train.epochs=5``, and check the whole.

    Raises:
        InputError: no such file, no YAML, an unknown key (the nearest known one is shown), or a bad value.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such config file")
    try:
        values = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read ({error})") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if not isinstance(values, dict):
        what = "nothing" if values is None else f"a {type(values).__name__}"
        raise InputError(f"{path}: holds {what}, not settings; write 'key: value' lines")
    # A section whose lines are all commented out reads as null.
    values |= {name: {} for name in sections_of(RunConfig) if name in values and values[name] is None}
    return check_config(parse_overrides(values, overrides or []), str(path))


def parse_overrides(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Apply ``section.key=value`` texts to plain settings, in place; values are read as YAML."""
    for override in overrides:
        _apply(values, override)
    return values


def check_config(values: dict[str, Any], where: str = "config") -> RunConfig:
    """Plain data -> the config of its task; an InputError is one line that begins with ``where``."""
    schema = schema_of(values.get("task", next(iter(TASKS))), where)
    values = _with_stage(values, where)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {'; '.join(explain(error, values, schema))}") from error


def dump_config(config: RunConfig) -> str:
    """The resolved config as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _with_stage(values: dict[str, Any], where: str) -> dict[str, Any]:
    """``lora.from`` is short for what it excludes."""
    lora = values.get("lora")
    if not isinstance(lora, dict) or "from" not in lora:
        return values
    stage, others = lora["from"], {key: value for key, value in lora.items() if key != "from"}
    if not isinstance(stage, str) or not stage:
        raise InputError(f"{where}: lora.from is {shown(stage)}; give a module's name, such as layer4 or blocks.9")
    excluded = others.get("exclude", [])
    if not isinstance(excluded, list):
        return {**values, "lora": others}  # the schema says what is wrong with it
    return {**values, "lora": {**others, "exclude": [*excluded, f"before:{stage}"]}}


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"'{override}' is no override; write section.key=value, such as train.epochs=5")
    *sections, last = key.split(".")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise InputError(f"'{override}': '{section}' is not a section")
    try:
        # A leading * would be an alias, and here there is nothing that it could refer to: it is a glob.
        values[last] = text if text.startswith("*") else read_yaml(text)
    except InputError as error:
        raise InputError(f"'{override}': {error}; put the value in quotes if it is text") from error
