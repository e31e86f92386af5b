"""What an adapted classifier still knows of what its base knew, and how much of its update keeps that."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from visionlora.adapters.config import LoRAConfig
from visionlora.adapters.header import FORMAT, read_file
from visionlora.adapters.layer import adapted_layers, adapted_parameters
from visionlora.adapters.loading import load_read
from visionlora.adapters.methods.registry import method_of
from visionlora.adapters.model import merged
from visionlora.adapters.saving import save_adapter
from visionlora.data.classification.labelled import LabelledImages
from visionlora.errors import InputError
from visionlora.models.classifier import Classifier
from visionlora.sections import RunConfig, read_model_section
from visionlora.tasks.classification.inference import TrainedClassifier
from visionlora.tasks.classification.knowledge import as_base, known_of, outputs_of, read_knowledge, refuse_no_head
from visionlora.tasks.classification.task import TASK
from visionlora.tasks.evaluation import Progress, score, silent
from visionlora.tasks.models import Trained, load_backbone
from visionlora.tasks.protocols import Labelled
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
    paths, labelled = read_knowledge(images)
    settings: Any = read_model_section(TASK.SCHEMA, header.extra["model"])
    if checkpoint is not None:
        settings = settings.model_copy(update={"checkpoint": checkpoint})
    outputs = outputs_of(settings, labelled)
    with torch.random.fork_rng():
        torch.manual_seed(header.extra.get("seed", 0))
        own: Classifier = TASK.build(settings, [str(index) for index in range(outputs)])
        adapted: Classifier = TASK.build(TASK.without_base(settings, path), header.classes or [])
    refuse_no_head(own, images, outputs)
    load_backbone(adapted.model, own.model, own.head)
    load_read(adapted.model, header, tensors, path)

    def on(model: nn.Module, data: Labelled, like: Trained) -> dict[str, float]:
        at_work = like.with_model(model.eval())
        metrics = score(at_work, data, config.train.batch_size, config.data.workers, device, progress)
        return metrics.scores()

    base = as_base(own, outputs, trained.preprocessing, path)
    known = known_of(base, paths, labelled, config.train.batch_size, config.data.workers, device)
    measure = TASK.metrics(trained, target, device).names[0]
    points = []
    for scale in scales_of(header.config):
        model = merged_at(adapted.model, scale)
        source = known.with_backbone(model)
        points.append(Point(scale, on(model, target, trained)[measure], on(source.model, known.data, source)["top1"]))
    return Retained(points, measure, known.labelled, len(known.data))


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
