"""What an adapted classifier still knows of what its base knew, and how much of its update keeps that."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.header import FORMAT, Header, read_file
from visionlora.adapters.io import load_read, save_adapter
from visionlora.adapters.layer import adapted_layers, adapted_parameters
from visionlora.adapters.methods.registry import method_of
from visionlora.adapters.model import merged
from visionlora.data.classification.folder_labels import read_folder
from visionlora.data.classification.labelled import LabelledImages
from visionlora.data.folders import images_in, refuse_missing_folder, subfolders
from visionlora.data.images import check_readable
from visionlora.errors import InputError
from visionlora.models.classifier import Classifier, own_outputs
from visionlora.sections import RunConfig, read_model_section
from visionlora.tasks.base import Trained
from visionlora.tasks.classification.inference import TrainedClassifier
from visionlora.tasks.classification.task import TASK
from visionlora.tasks.evaluation import Progress, score, silent
from visionlora.tasks.trained import load_trained, read_metadata

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCALES = tuple(index / 10 for index in range(11))
ALL_OR_NOTHING = (0.0, 1.0)
"""Of a method whose update can't be scaled."""


@dataclass(frozen=True)
class Point:
    """Both scores with so much of the update.

    Attributes:
        scale: 0 is the base's backbone, with the adapter's head on the target; 1 the adapted model.
        target: the run's first score on its own images.
        source: top-1 of the base's own head on the images to be retained: against their labels, or against what the
            base says where they have none.
    """

    scale: float
    target: float
    source: float


@dataclass(frozen=True)
class Retained:
    """The whole curve.

    Attributes:
        points: by rising scale, from 0.
        measure: of the target.
        labelled: the source is scored by labels, and not by agreement.
        images: of the source.
    """

    points: list[Point]
    measure: str
    labelled: bool
    images: int

    def kept(self, point: Point) -> float:
        """The share of the base's own score."""
        return point.source / self.points[0].source if self.points[0].source else 0.0

    def largest(self, at_least: float) -> Point:
        """With the most of the update, of those that keep so much. InputError if that is none of it."""
        found = [point for point in self.points[1:] if self.kept(point) >= at_least]
        if not found:
            best = max(self.points[1:], key=self.kept)
            raise InputError(
                f"--retain-at-least {at_least:g}: no scale above 0 keeps so much; {best.scale:g} keeps "
                f"{self.kept(best):.3f}"
            )
        return found[-1]


def retained(
    path: Path,
    trained: TrainedClassifier,
    target: LabelledImages,
    images: Path,
    config: RunConfig,
    device: torch.device,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Retained:
    """Score the base, the adapted model and what lies between, on the target and on what the base knew.

    Args:
        path: the adapter's file.
        trained: what it holds, as ``load_trained`` gives it.
        target: the run's images, labelled.
        images: to be retained: class folders with the base's own classes, in the order of its outputs by name; or a
            folder of any images, on which agreement with the base is scored.
        config: batch size and workers.
        device: to compute on.
        checkpoint: the base's weights, if they have moved.
        progress: shows how far it is.

    Raises:
        InputError: no adapter, no classifier, a base without a head of its own for these classes, or images that
            can't be read.
    """
    if trained.task != "classification":
        raise InputError(f"--retain is for classifiers, and {path} is for {trained.task}")
    if read_metadata(path).get("format") != FORMAT:
        raise InputError(f"{path}: every weight of this model was trained, there is no base in it to retain")
    header, tensors = read_file(path)
    source = _read_images(images)
    labelled = source is not None
    outputs = len(source.classes) if source is not None else own_outputs(header.extra["model"]["name"])
    own = _with_own_head(path, header, tensors, outputs, checkpoint, images)
    adapted = load_trained(path, checkpoint, merged=False, download=True)

    def on(model: nn.Module, data: LabelledImages, like: Trained) -> dict[str, float]:
        at_work = like.with_model(model.eval())
        metrics = score(at_work, data, config.train.batch_size, config.data.workers, device, progress)
        return metrics.scores()

    if source is None:
        source = _as_the_base_says(_loose(images), own.with_model(merged_at(own.model, 0.0)), config, device)
    measure = TASK.metrics(trained, target, device).names[0]
    points = [
        Point(
            scale,
            on(merged_at(adapted.model, scale), target, trained)[measure],
            on(merged_at(own.model, scale), source, own)["top1"],
        )
        for scale in scales_of(header.config)
    ]
    return Retained(points, measure, labelled, len(source))


def scales_of(config: LoRAConfig) -> Sequence[float]:
    """In steps of a tenth, where the method adds to the weight."""
    return SCALES if method_of(config.method).adds else ALL_OR_NOTHING


def merged_at(model: nn.Module, scale: float) -> nn.Module:
    """A merged copy with so much of the update; the whole of it may be of a method that does not add."""
    if scale == 1.0:
        return merged(model)
    if scale == 0.0:
        return _without_updates(model)
    return merged(model, scale)


def write_scaled(path: Path, scale: float, out: Path, checkpoint: Path | None = None) -> None:
    """Write the adapter with its update times ``scale``, as a file like any other: its alphas are so much smaller.

    Raises:
        InputError: the adapter can't be loaded.
    """
    header, tensors = read_file(path)
    config = header.config
    chosen = replace(
        config,
        alpha=config.alpha * scale,
        alpha_pattern={key: alpha * scale for key, alpha in config.alpha_pattern.items()},
    )
    layers = {key: {**layer, "alpha": layer["alpha"] * scale} for key, layer in header.layers.items()}
    base = load_trained(path, checkpoint, base=True, download=True)
    load_read(base.model, replace(header, config=chosen, layers=layers), tensors, path)
    extra = {key: value for key, value in header.extra.items() if key != "scores"}  # those were the whole update's
    save_adapter(base.model, out, classes=header.classes, preprocessing=header.preprocessing, extra=extra)


def figure_of(found: Retained) -> "Figure":
    """The target's score against what is retained, with the scale at each point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 5.0), layout="constrained")
    axes = figure.subplots()
    axes.plot([point.source for point in found.points], [point.target for point in found.points], marker="o")
    for point in found.points:
        place = (point.source, point.target)
        axes.annotate(f"{point.scale:g}", place, textcoords="offset points", xytext=(5, 5), fontsize=8)
    axes.set_xlabel("top1 on the images to be retained" if found.labelled else "agreement with the base")
    axes.set_ylabel(f"{found.measure} on the run's own images")
    axes.set_title("by the share of the update", fontsize=10)
    axes.grid(alpha=0.3)
    return figure


@torch.no_grad()
def _without_updates(model: nn.Module) -> nn.Module:
    """A merged copy whose adapted weights are the base's; what trains beside them stays."""
    plain = merged(model)
    for path, layer in adapted_layers(model):
        for name in adapted_parameters(layer):
            frozen = layer._parameters[name]
            assert frozen is not None
            plain.get_parameter(f"{path}.{name}").copy_(frozen)
    return plain


def _read_images(images: Path) -> LabelledImages | None:
    """Labelled ones, or None where no folder inside holds any."""
    refuse_missing_folder(images)
    if not any(images_in(folder) for folder in subfolders(images)):
        return None
    data = read_folder(images)
    check_readable(data.paths, False)
    return data


def _loose(images: Path) -> list[Path]:
    if not (found := images_in(images)):
        raise InputError(f"--retain {images}: holds no image")
    check_readable(found, False)
    return found


def _with_own_head(
    path: Path, header: Header, tensors: dict[str, Any], outputs: int, checkpoint: Path | None, images: Path
) -> TrainedClassifier:
    """The base with the head that it came with, and the adapter's layers on it."""
    names = [str(index) for index in range(outputs)]
    base: TrainedClassifier = load_trained(path, checkpoint, base=True, download=True)
    settings: Any = read_model_section(TASK.SCHEMA, header.extra["model"])
    if checkpoint is not None:
        settings = settings.model_copy(update={"checkpoint": checkpoint})
    with torch.random.fork_rng():
        torch.manual_seed(header.extra.get("seed", 0))
        built: Classifier = TASK.build(settings, names)
    heads = [p for name in built.head for p in built.model.get_submodule(name).parameters()]
    if not any(parameter.any() for parameter in heads):
        raise InputError(
            f"--retain {images}: the base has no head of its own for {outputs} classes; give class folders of all "
            "classes that its weights know, or images without class folders"
        )
    load_read(built.model, header, tensors, path, heads=False)
    return replace(base, built=built, classes=names, about={})


def _as_the_base_says(
    paths: list[Path], base: TrainedClassifier, config: RunConfig, device: torch.device
) -> LabelledImages:
    """The images, each with the base's own answer for a label."""
    data = LabelledImages(paths, [(0,)] * len(paths), base.classes)
    loader = TASK.loader(base, data, config.train.batch_size, config.data.workers)
    answers: list[int] = []
    model = base.model.eval().to(device)
    with torch.no_grad():
        for batch in loader:
            answers += model(batch["image"].to(device)).argmax(dim=1).tolist()
    return replace(data, labels=[(answer,) for answer in answers])
