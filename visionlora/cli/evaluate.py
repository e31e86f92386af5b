"""``visionlora eval``."""

from pathlib import Path
from typing import Any

from visionlora.cli.forgetting import Retain, show_retained
from visionlora.cli.show import check_out, print_table, progress, say
from visionlora.config import check_config, load_config, parse_overrides
from visionlora.data.faults import tell_left_out
from visionlora.errors import InputError, some
from visionlora.exports.opening import open_trained
from visionlora.files import write_json
from visionlora.sections import RunConfig
from visionlora.tasks.evaluation import score
from visionlora.tasks.models import Trained
from visionlora.tasks.registry import task_of
from visionlora.tasks.together import old_and_new
from visionlora.tasks.trained import load_trained
from visionlora.training.folder import CONFIG
from visionlora.training.host_memory import freed_memory_kept
from visionlora.training.keeping import by_group
from visionlora.training.run import pick_device


def evaluate(
    run: Path,
    overrides: list[str],
    part: str,
    base: bool,
    out: Path | None,
    checkpoint: Path | None,
    device: str,
    skip_unreadable: bool,
    download: bool,
    retain: Retain | None = None,
) -> None:
    """Print scores, overall and per class, and write them if asked; and what is retained of the base's."""
    check_out(out)
    if base:
        trained = load_trained(run, checkpoint, base=True, download=download)
    else:
        trained = open_trained(run, checkpoint, download)
    config = config_for(run, trained, overrides)
    if config.task != trained.task:
        raise InputError(f"{run} was trained for {trained.task}, and the settings are for {config.task}")
    if skip_unreadable:
        config = config.model_copy(update={"data": config.data.model_copy(update={"skip_unreadable": True})})
    task = task_of(trained.task)
    trained = task.adjusted(trained, config)
    chosen = task.images(config, part, trained.classes)
    data = chosen.data
    if chosen.skipped:
        say(f"left out because they can't be read: {some(chosen.skipped)}")
    if chosen.faulty:
        print(tell_left_out(chosen.faulty, f"all are in {out}" if out else "--out FILE lists all"))
    if not len(data):
        raise InputError("no image is left: none of them can be read")
    at, train = pick_device(device), config.train
    with freed_memory_kept(at, train.memory):
        metrics = score(trained, data, train.batch_size, config.data.workers, at, progress=progress)
    scores, per_class = metrics.scores(), metrics.per_class()
    print_table(["score", "value"], [[name, f"{value:.4f}"] for name, value in scores.items()])
    columns = list(dict.fromkeys(name for values in per_class.values() for name in values))
    rows = []
    counts = data.counts()
    groups = by_group(trained, per_class, counts)
    for name, count in zip(trained.classes, counts, strict=True):
        if groups and not count:
            continue  # a base may know a thousand classes that these images don't show
        values = per_class.get(name, {})
        rows.append([name, str(count), *(f"{values[key]:.3f}" if key in values else "-" for key in columns)])
    for group, names in zip(groups, old_and_new(trained) or (), strict=True):
        many = sum(count for name, count in zip(trained.classes, counts, strict=True) if name in set(names))
        means = [f"{groups[group][key]:.3f}" if key in groups[group] else "-" for key in columns]
        rows.append([f"{group}: mean of those of {len(names)} that are shown", str(many), *means])
    print_table(["class", task.counted, *columns], rows)
    if out is not None:
        grouped = {"groups": groups} if groups else {}
        counted = {"images": len(data), "skipped": [str(path) for path in chosen.skipped], "faulty": chosen.faulty}
        write_json(out, {**counted, "scores": scores, "per_class": per_class, **grouped, **metrics.details()})
    if retain is not None:
        show_retained(retain, trained, data, config, checkpoint, device)


def config_for(run: Path, trained: Trained, overrides: list[str]) -> RunConfig:
    """The run's own settings where there is a run folder, with the overrides on top."""
    saved = (run if run.is_dir() else run.parent) / CONFIG
    if saved.is_file():
        return load_config(saved, overrides)
    data = task_of(trained.task).settings_of(trained)
    values: dict[str, Any] = {"task": trained.task, "model": trained.about["model"], "data": data}
    if old_and_new(trained):
        values["train"] = {"keep_classes": True}  # the images may show only some of the classes
    return check_config(parse_overrides(values, overrides))
