"""A trained model from its run folder or file, ready to use, and a plain model's file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

from visionlora.adapters.header import FORMAT, read_file
from visionlora.adapters.loading import load_read
from visionlora.adapters.model import merge
from visionlora.checksums import refuse_damaged, refuse_damaged_config
from visionlora.errors import InputError
from visionlora.files import write_atomic
from visionlora.models.timm_models import HUBS
from visionlora.models.weights import explain_mismatch
from visionlora.plain_json import read_json
from visionlora.sections import ModelSection, read_model_section
from visionlora.tasks.about import KEEPS, Keeps, Together, check_about, keeps_of, read_plain_fields, refuse_many_classes
from visionlora.tasks.base import Task
from visionlora.tasks.models import Trained
from visionlora.tasks.registry import TASKS, schema_of, task_of
from visionlora.tasks.together import ENTRY, build_base, build_together, state_of, with_base
from visionlora.tensor_files import open_tensors, shapes_of, write_tensors

ADAPTER, MODEL = "adapter.safetensors", "model.safetensors"
"""What a run folder holds of one: an adapter, or the whole model where every weight trained."""
PICTURES = "pictures"
"""In what a file says of itself: statistics of the pictures that it was trained or recalibrated on."""
CONFIG = "config.yaml"
"""And the settings beside it, by which a run folder is known."""


def load_trained(
    path: Path,
    checkpoint: Path | None = None,
    merged: bool = True,
    base: bool = False,
    download: bool = False,
    alone: bool = False,
) -> Trained:
    """Load what a run trained: the base by its name, and the adapter (or the whole model) on it.

    Args:
        path: a run folder, or an adapter's or model's file from one.
        checkpoint: the base's weights, if they are no longer where the run found them.
        merged: merge the adapter; without, the model keeps it.
        base: load the base alone, without the adapter, to compare with.
        download: fetch the base's weights from the hub that a file names. A run folder's own settings have said so
            already; a file that lies in none may come from anybody.
        alone: of an adapter whose base answers beside it, only what it was trained for. So it is also where it is not
            merged; ``base`` is then the base with the classes of its own.

    Raises:
        InputError: there is nothing to load, it is damaged, its base must be fetched and nobody said so, or the
            base is not the one it was trained on.
    """
    path = _file(path)
    adapted = _metadata(path).get("format") == FORMAT
    if adapted:
        header, adapter = read_file(path)
        classes, preprocessing, about = header.classes, header.preprocessing, header.extra
    else:
        classes, preprocessing, about = read_plain_fields(read_metadata(path), path)
        with open_tensors(path) as file:
            refuse_many_classes(classes, shapes_of(file).values(), path)
    if not classes or not preprocessing or "model" not in about:
        raise InputError(
            f"{path}: does not say its classes, preprocessing and base; load it with visionlora.load_adapter"
        )
    name = about.get("task", next(iter(TASKS)))
    task = task_of(name, str(path))
    check_about(task.ABOUT, about, classes, path)
    shown = _preprocessing(task, preprocessing, path)
    try:
        section: Any = read_model_section(schema_of(name), about["model"])
    except ValidationError as error:
        raise InputError(f"{path}: the settings of its base are damaged; save it again") from error
    if checkpoint is not None:
        section = section.model_copy(update={"checkpoint": checkpoint})
    elif not adapted:
        section = task.without_base(section, path)
    elif section.checkpoint is not None and not section.checkpoint.is_file():
        raise InputError(f"{path}: its base's weights are not at {section.checkpoint}; say where with --checkpoint")
    if not download and not (path.parent / CONFIG).is_file():
        _refuse_download(section, path)
    kept = keeps_of(about) if adapted and merged and not alone else None
    if kept is not None and base:
        own = build_base(task, section, about.get("seed", 0))
        told = {**own.about, "task": name, "model": about["model"], "seed": about.get("seed", 0)}
        return Trained(name, own.built, own.classes, shown, path, told)
    if not adapted and (made := about.get(ENTRY)) is not None:
        if base:
            raise InputError(f"{path}: holds several models together; give --base the run of one of them")
        return build_together(name, section, Together.model_validate(made), classes, shown, about, path)
    with torch.random.fork_rng():
        # A base without pretrained weights is what its seed makes of it.
        torch.manual_seed(about.get("seed", 0))
        built = task.build(section, classes)
    model: nn.Module = built.model
    if base and not adapted:
        raise InputError(f"{path}: every weight of this model was trained, there is no base in it to compare with")
    if adapted and not base:
        load_read(model, header, adapter, path)
        if merged:
            merge(model)
    if not adapted:
        _load_all(model, section.name, path)
    model.eval()
    trained = Trained(name, built, classes, shown, path, about)
    if kept is None or base:
        return trained
    return with_base(task, trained, build_base(task, section, about.get("seed", 0)), kept)


def write_plain(
    model: nn.Module,
    path: Path,
    classes: list[str],
    preprocessing: dict[str, Any],
    about: dict[str, Any],
    more: Mapping[str, str] | None = None,
) -> None:
    """Write the model's state dict, with what ``load_trained`` asks for and ``more`` metadata, atomically.

    Raises OSError if that fails.
    """
    fields = {"classes": classes, "preprocessing": preprocessing, "extra": about}
    header = {"format": "pt", **(more or {}), **{key: json.dumps(value) for key, value in fields.items()}}
    write_atomic(path, lambda temporary: write_tensors(state_of(model), temporary, header))


def write_keeps(path: Path, keeps: Keeps) -> None:
    """Say in an adapter's file that its base answers beside it; it is replaced as a whole."""
    fields = read_metadata(path)
    extra = {**read_json(fields["extra"]), KEEPS: keeps.model_dump(exclude_defaults=True)}
    tensors = load_file(path)
    changed = {**fields, "extra": json.dumps(extra)}
    write_atomic(path, lambda temporary: write_tensors(tensors, temporary, changed))


def _refuse_download(section: ModelSection, path: Path) -> None:
    names = [name for name in (section.name, getattr(section, "backbone", None)) if name]
    from_hub = [name for name in names if name.startswith(HUBS)]
    if from_hub:  # the hub's own description of the model is fetched even where the weights are here
        raise InputError(f"{path}: its base is {from_hub[0]}, of a hub; --download (download=True) fetches it")
    if section.pretrained and section.checkpoint is None:
        raise InputError(
            f"{path}: its base is {names[-1]} with the weights of its library's hub; give them as a local file with "
            f"--checkpoint, or fetch them with --download (download=True)"
        )


def _load_all(model: nn.Module, name: str, path: Path) -> None:
    tensors = load_file(path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(explain_mismatch(path, name, model, tensors, error)) from error


def _preprocessing(task: Task, values: dict[str, Any], path: Path) -> Any:
    try:
        return task.read_preprocessing(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in (ADAPTER, MODEL):
        if (path / name).is_file():
            return path / name
    raise InputError(f"{path}: holds no {ADAPTER} and no {MODEL}; give the folder of a run that has evaluated once")


def read_metadata(path: Path) -> dict[str, str]:
    """What a .safetensors file says of itself. InputError if it is missing, none of these, or damaged."""
    fields = _metadata(path)
    refuse_damaged(path, fields)
    refuse_damaged_config(path, fields)
    return fields


def _metadata(path: Path) -> dict[str, str]:
    """The same before it is known whether the file is whole."""
    if not path.is_file():
        raise InputError(f"{path}: no such file or run folder")
    with open_tensors(path) as file:
        fields: dict[str, str] = file.metadata() or {}
    return fields
