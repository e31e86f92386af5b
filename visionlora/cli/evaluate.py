"""``visionlora eval``."""

from pathlib import Path

from visionlora.cli.show import check_out, print_table, progress
from visionlora.config import DataSection, RunConfig, check_config, load_config, parse_overrides
from visionlora.data.classification import LabelledImages
from visionlora.data.images import check_readable
from visionlora.data.split import load_split, read_part
from visionlora.errors import InputError, some
from visionlora.files import write_json
from visionlora.training.folder import CONFIG
from visionlora.training.prediction import score
from visionlora.training.run import pick_device
from visionlora.training.trained import Trained, load_trained


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
    trained = load_trained(run, checkpoint, base=base)
    config = _config(run, trained, overrides)
    section = config.data.model_copy(update={"skip_unreadable": skip_unreadable or config.data.skip_unreadable})
    if section.multilabel != trained.multilabel:
        raise InputError(f"{run} was trained with data.multilabel={str(trained.multilabel).lower()}; evaluate it so")
    data, left_out = _images(section, config.train.seed, part, trained.classes)
    if left_out:
        print(f"left out, for they can't be read: {some(left_out)}")
    if not len(data):
        raise InputError("no image is left: none of them can be read")
    with progress("evaluating", len(data)) as advance:
        metrics = score(
            trained, data, config.train.batch_size, config.data.workers, pick_device(device), on_batch=advance
        )
    scores, per_class = metrics.scores(), metrics.per_class()
    print_table(["score", "value"], [[name, f"{value:.4f}"] for name, value in scores.items()])
    counts = dict(zip(trained.classes, data.counts(), strict=True))
    rows = [
        [name, str(counts[name]), *(f"{values[column]:.3f}" for column in ("precision", "recall", "f1"))]
        for name, values in per_class.items()
    ]
    print_table(["class", "images", "precision", "recall", "f1"], rows)
    if out is not None:
        content = {"images": len(data), "scores": scores, "per_class": per_class, "confusion": metrics.confusion()}
        write_json(out, content)


def _config(run: Path, trained: Trained, overrides: list[str]) -> RunConfig:
    """The run's own settings where there is a run folder, with the overrides on top."""
    saved = (run if run.is_dir() else run.parent) / CONFIG
    if saved.is_file():
        return load_config(saved, overrides)
    data = {"multilabel": trained.multilabel}
    return check_config(parse_overrides({"model": trained.about["model"], "data": data}, overrides))


def _images(data: DataSection, seed: int, part: str, classes: list[str]) -> tuple[LabelledImages, list[Path]]:
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
