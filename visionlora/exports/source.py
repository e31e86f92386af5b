"""What an export starts from: a trained model in its three states, and what its run says of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

from visionlora.adapters.header import FORMAT
from visionlora.config import load_config
from visionlora.errors import InputError
from visionlora.sections import RunConfig, read_model_section
from visionlora.tasks.base import Task
from visionlora.tasks.models import Trained
from visionlora.tasks.registry import task_of
from visionlora.tasks.together import together_of
from visionlora.tasks.trained import load_trained
from visionlora.training.folder import CONFIG, REPORT


@dataclass(frozen=True)
class Source:
    """A trained model and what is known of it.

    Attributes:
        trained: merged.
        adapted: with its adapter still on it; None if every weight was trained, or the base answers beside it.
        base: without; None if every weight was trained.
        config: of the run; None for a file alone.
        report: of the run; empty for a file alone, or before its end.
        folder: of the run; None for a file alone.
    """

    trained: Trained
    adapted: nn.Module | None
    base: nn.Module | None
    config: RunConfig | None = None
    report: dict[str, Any] | None = None
    folder: Path | None = None

    @property
    def task(self) -> Task:
        """The model's."""
        return task_of(self.trained.task)

    @property
    def reference(self) -> nn.Module:
        """What the exported model must compute."""
        return self.trained.model if self.adapted is None else self.adapted

    @property
    def library(self) -> str:
        """Whose code builds the plain model: ``timm`` or ``torchvision``; else ``visionlora``, over timm's backbone, or
        of a base with new classes beside it."""
        if together_of(self.trained):
            return "visionlora"
        section = read_model_section(self.task.SCHEMA, self.trained.about["model"])
        return self.task.library(section)

    def about_model(self) -> dict[str, Any]:
        """The settings of its plain model, without this machine's folders."""
        model: dict[str, Any] = self.public_about()["model"]
        return model

    def public_about(self) -> dict[str, Any]:
        """What the file says of itself, without this machine's folders."""
        about = dict(self.trained.about)
        model = dict(about["model"])
        if model.get("checkpoint"):
            model["checkpoint"] = Path(model["checkpoint"]).name
        return {**about, "model": model}


def load_source(path: Path, trained: Trained, checkpoint: Path | None, download: bool = False) -> Source:
    """The other two states of a model that ``load_trained`` has read, and its run's settings and report.

    Raises:
        InputError: the run's config or report is damaged.
    """
    folder = path if path.is_dir() else path.parent
    config = load_config(folder / CONFIG) if (folder / CONFIG).is_file() else None
    adapted = base = None
    with safe_open(trained.path, framework="pt") as file:
        is_adapter = (file.metadata() or {}).get("format") == FORMAT
    if is_adapter:
        if not together_of(trained):
            adapted = load_trained(path, checkpoint, merged=False, download=download).model
        base = load_trained(path, checkpoint, base=True, download=download).model
    report = _report(folder / REPORT) if config is not None else None
    if report and report.get("kept") and together_of(trained):
        report = {**report, "scores": report["kept"]["scores"], "per_class": report["kept"]["groups"]}
    return Source(trained, adapted, base, config, report, folder if config is not None else None)


def _report(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read as JSON ({error}); give the adapter's file alone") from error
    return report
