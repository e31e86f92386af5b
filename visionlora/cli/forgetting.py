"""``visionlora eval --retain``."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from visionlora.cli.show import check_folder, print_table, progress, say
from visionlora.errors import InputError
from visionlora.files import new_folder, write_json
from visionlora.sections import RunConfig
from visionlora.studies.forgetting import figure_of, retained, write_scaled
from visionlora.tasks.classification.retaining import answers_on
from visionlora.tasks.models import Trained
from visionlora.tasks.registry import task_of
from visionlora.tasks.together import base_of, old_and_new
from visionlora.training.run import pick_device

PICTURE, TABLE, ADAPTER = "retained.png", "retained.json", "adapter.safetensors"


@dataclass(frozen=True)
class Retain:
    """What was asked for: images to be retained, a share of the base's score, a folder for what was found."""

    images: Path
    at_least: float | None
    out: Path | None


def check_retain(images: Path | None, at_least: float | None, out: Path | None, base: bool) -> Retain | None:
    """The options of ``--retain``. InputError where they don't fit together, or the folder is not empty."""
    if images is None:
        if at_least is not None or out is not None:
            raise InputError("--retain-at-least and --retain-out need --retain PATH, the images to be retained")
        return None
    if base:
        raise InputError("--base and --retain exclude each other: the base is where the curve begins")
    if at_least is not None and out is None:
        raise InputError("--retain-at-least writes a new adapter: give a folder for it as --retain-out")
    check_folder(out, "--retain-out")
    return Retain(images, at_least, out)


def show_retained(
    asked: Retain,
    trained: Trained,
    target: Any,
    config: RunConfig,
    checkpoint: Path | None,
    device: str,
) -> None:
    """Print the curve, and write it and the adapter that keeps enough, if asked."""
    if old_and_new(trained):
        _show_answers(asked, trained, config, checkpoint, device)
        return
    found = retained(
        trained.path, trained, target, asked.images, config, pick_device(device), checkpoint, progress=progress
    )
    chosen = found.largest(asked.at_least) if asked.at_least is not None else None
    what = "top1 by labels" if found.labelled else "agreement with the base"
    rows = [[f"{p.scale:g}", f"{p.target:.4f}", f"{p.source:.4f}", f"{found.kept(p):.3f}"] for p in found.points]
    print_table(["scale", f"{found.measure} here", f"{what}, {found.images} images", "of the base's"], rows)
    if asked.out is None:
        return
    with new_folder(asked.out) as folder:
        figure_of(found).savefig(folder / PICTURE, dpi=110)
        write_json(folder / TABLE, asdict(found))
        if chosen is not None:
            write_scaled(trained.path, chosen.scale, folder / ADAPTER, checkpoint)
    if chosen is not None:
        say(
            f"scale {chosen.scale:g} keeps {found.kept(chosen):.3f} of the base's score, and has {found.measure} "
            f"{chosen.target:.4f} here: {asked.out / ADAPTER}"
        )
    say(f"the curve is in {asked.out}")


def _show_answers(asked: Retain, trained: Trained, config: RunConfig, checkpoint: Path | None, device: str) -> None:
    """Of a model that has new classes and its base's."""
    if trained.task != "classification":
        raise InputError(
            f"--retain is for classifiers, and {trained.path} is for {trained.task}; eval shows old classes by labels"
        )
    if asked.at_least is not None:
        raise InputError("--retain-at-least scales an adapter's update, and here the base's classes are kept beside it")
    base = base_of(task_of(trained.task), trained, checkpoint)
    found = answers_on(asked.images, trained, base, config, pick_device(device))
    rows = [["top1 by labels", f"{found.base:.4f}", f"{found.now:.4f}"]] if found.base is not None else []
    rows += [
        ["agreement with the base", "", f"{found.agreement:.4f}"],
        ["a new class answers", "", f"{found.taken:.4f}"],
    ]
    print_table([f"{found.images} images", "base", "with new classes"], rows)
    if asked.out is not None:
        with new_folder(asked.out) as folder:
            write_json(folder / TABLE, asdict(found))
        say(f"the shares are in {asked.out}")
