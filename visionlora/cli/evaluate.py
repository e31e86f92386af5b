"""``visionlora eval``."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from visionlora.cli.show import check_out, print_table, progress
from visionlora.config import check_config, load_config, parse_overrides
from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.annotations.split import choose_part, load_annotated_split, read_annotated
from visionlora.data.classification.dataset import LabelledImages
from visionlora.data.classification.split import load_split, read_part
from visionlora.data.images import check_readable
from visionlora.data.segmentation.split import load_segmented_split, read_segmented_part
from visionlora.errors import InputError, some
from visionlora.exports.loading import load_for_prediction
from visionlora.files import write_json
from visionlora.sections import ClassificationData, RunConfig
from visionlora.tasks.classification.config import ClassificationConfig
from visionlora.tasks.detection.config import DetectionConfig, DetectionData
from visionlora.tasks.segmentation.config import SegmentationConfig
from visionlora.training.detecting import score_detections
from visionlora.training.folder import CONFIG
from visionlora.training.prediction import score
from visionlora.training.run import pick_device
from visionlora.training.segmenting import score_masks
from visionlora.training.trained import Trained, load_trained


class Scored(NamedTuple):
    """An evaluation: its metrics, the number of images, and how many things of which kind each class has."""

    metrics: Any
    images: int
    counts: list[int]
    counted: str


def evaluate(
    run: Path,
    overrides: list[str],
    part: str,
    base: bool,
    out: Path | None,
    checkpoint: Path | None,
    device: str,
    skip_unreadable: bool,
) -> None:
    """Print scores, overall and per class, and write them if asked."""
    check_out(out)
    trained = load_trained(run, checkpoint, base=True) if base else load_for_prediction(run, checkpoint)
    config = _config(run, trained, overrides)
    if skip_unreadable:
        config = config.model_copy(update={"data": config.data.model_copy(update={"skip_unreadable": True})})
    if isinstance(config, ClassificationConfig) and trained.task == "classification":
        scored = _score_classifier(run, trained, config, part, device)
    elif isinstance(config, DetectionConfig) and trained.task == "detection":
        scored = _score_detector(trained, config, part, device)
    elif isinstance(config, SegmentationConfig) and trained.task == "segmentation":
        scored = _score_segmenter(trained, config, part, device)
    else:
        raise InputError(f"{run} was trained for {trained.task}, and the settings are for {config.task}")
    scores, per_class = scored.metrics.scores(), scored.metrics.per_class()
    print_table(["score", "value"], [[name, f"{value:.4f}"] for name, value in scores.items()])
    columns = list(dict.fromkeys(name for values in per_class.values() for name in values))
    rows = []
    for name, count in zip(trained.classes, scored.counts, strict=True):
        values = per_class.get(name, {})
        rows.append([name, str(count), *(f"{values[key]:.3f}" if key in values else "-" for key in columns)])
    print_table(["class", scored.counted, *columns], rows)
    if out is not None:
        content = {"images": scored.images, "scores": scores, "per_class": per_class, **scored.metrics.details()}
        write_json(out, content)


def _config(run: Path, trained: Trained, overrides: list[str]) -> RunConfig:
    """The run's own settings where there is a run folder, with the overrides on top."""
    saved = (run if run.is_dir() else run.parent) / CONFIG
    if saved.is_file():
        return load_config(saved, overrides)
    data: dict[str, Any] = {}
    if trained.task == "classification":
        data = {"multilabel": trained.multilabel}
    elif trained.task == "segmentation":
        data = {"window": trained.preprocessing.window, "window_overlap": trained.preprocessing.window_overlap}
    elif trained.task == "detection":
        data = {"tile": trained.preprocessing.tile, "tile_overlap": trained.preprocessing.tile_overlap}
    return check_config(
        parse_overrides({"task": trained.task, "model": trained.about["model"], "data": data}, overrides)
    )


def _score_classifier(run: Path, trained: Trained, config: ClassificationConfig, part: str, device: str) -> Scored:
    if config.data.multilabel != trained.multilabel:
        raise InputError(f"{run} was trained with data.multilabel={str(trained.multilabel).lower()}; evaluate it so")
    data, left_out = _labelled(config.data, config.train.seed, part, trained.classes)
    _tell(left_out, len(data))
    with progress("evaluating", len(data)) as advance:
        metrics = score(
            trained, data, config.train.batch_size, config.data.workers, pick_device(device), on_batch=advance
        )
    return Scored(metrics, len(data), data.counts(), "images")


def _labelled(data: ClassificationData, seed: int, part: str, classes: list[str]) -> tuple[LabelledImages, list[Path]]:
    """What to evaluate on, and the files that were left out because they can't be read."""
    if part := part or data.val or "":
        images = read_part(data, part, classes)
        unreadable = check_readable(images.paths, data.skip_unreadable)
        return images.without(unreadable), sorted(unreadable)
    split = load_split(data, seed)
    if split.val.classes != classes:
        raise InputError(
            f"the data's classes ({some(split.val.classes)}) are not the model's ({some(classes)}); "
            f"name the part of the data to evaluate on: --part"
        )
    return split.val, split.skipped


def _score_detector(trained: Trained, config: DetectionConfig, part: str, device: str) -> Scored:
    """As the model was trained, unless the settings say other tiles."""
    shown = trained.preprocessing
    if config.model.size not in (None, shown.size):
        raise InputError(
            f"model.size is {config.model.size}, and the detector resizes images to {shown.size} px itself"
        )
    tiles = {"tile": config.data.tile, "tile_overlap": config.data.tile_overlap}
    trained = replace(trained, preprocessing=replace(shown, **tiles))
    data, left_out = _annotated(config.data, part, trained.classes)
    _tell(left_out, len(data))
    with progress("evaluating", None if trained.preprocessing.tile else len(data)) as advance:
        metrics = score_detections(
            trained, data, config.train.batch_size, config.data.workers, pick_device(device), on_batch=advance
        )
    return Scored(metrics, len(data), data.counts(), "objects")


def _annotated(data: DetectionData, part: str, classes: list[str]) -> tuple[AnnotatedImages, list[Path]]:
    """As `_labelled`. The part ``all`` is every image."""
    if not part or data.annotations is None:
        split = load_annotated_split(data, classes)
        return split.val, split.skipped
    path = data.val_annotations if part == "val" and data.val_annotations is not None else data.annotations
    images, skipped = read_annotated(data, path, classes)
    return images if part == "all" else choose_part(data, images, part), skipped


def _score_segmenter(trained: Trained, config: SegmentationConfig, part: str, device: str) -> Scored:
    """As the model was trained, unless the settings say another size or other windows."""
    if part:
        data, left_out = read_segmented_part(config.data, part, trained.classes)
    else:
        split = load_segmented_split(config.data, trained.classes)
        data, left_out = split.val, split.skipped
    _tell(left_out, len(data))
    size, window, overlap = config.model.size, config.data.window, config.data.window_overlap
    trained = replace(
        trained, preprocessing=replace(trained.preprocessing, size=size, window=window, window_overlap=overlap)
    )
    with progress("evaluating", len(data)) as advance:
        metrics = score_masks(
            trained, data, config.train.batch_size, config.data.workers, pick_device(device), on_batch=advance
        )
    return Scored(metrics, len(data), data.counts(), "pixels")


def _tell(left_out: list[Path], images: int) -> None:
    if left_out:
        print(f"left out, for they can't be read: {some(left_out)}")
    if not images:
        raise InputError("no image is left: none of them can be read")
