"""Files of runs and exports of which a bit is flipped or an end is cut off."""

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import visionlora as vl
from visionlora.config import load_config
from visionlora.errors import InputError
from visionlora.exports.opening import open_trained
from visionlora.models.classifier import create_classifier
from visionlora.sections import RunConfig
from visionlora.tasks.trained import ADAPTER, load_trained
from visionlora.training.checkpoint import checkpoints, newest_checkpoint
from visionlora.training.folder import CHECKPOINTS, CONFIG, METRICS
from visionlora.training.resuming import changed_settings

Look = Callable[[Path], list[str]]
"""Takes a folder of which a file is damaged; what it says of it."""


def attack_files(out: Path, tasks: list[str], damages: int, seed: int) -> int:
    """Print what came of each kind of file; how many damages were not noticed."""
    generator, failed = random.Random(seed), 0
    targets = [target for task in tasks for target in _targets(out, task)]
    noticed = {str(folder.relative_to(out) / file): (0, 0) for folder, file, _ in targets}
    for number in range(damages):
        folder, file, look = targets[number % len(targets)]
        name = str(folder.relative_to(out) / file)
        with damaged(folder, file, generator) as (copy, what):
            try:
                told = look(copy)
            except InputError as error:
                told = [str(error)]
            except Exception as error:  # whatever else comes is a traceback for whoever runs it
                told = []
                what += f": {type(error).__name__}"
        good = bool(told) and all("\n" not in line for line in told)
        if not good:
            print(f"{name}, {what}: not noticed", flush=True)
        noticed[name] = (noticed[name][0] + good, noticed[name][1] + 1)
        failed += not good
    for name, (good, all_of_them) in noticed.items():
        print(f"{name}: {good} of {all_of_them} noticed")
    return failed


def _targets(out: Path, task: str) -> Iterator[tuple[Path, str, Look]]:
    run = out / f"whole_{task}"
    newest = f"{CHECKPOINTS}/{checkpoints(run / CHECKPOINTS)[-1].name}"
    for name in ("tensors.safetensors", "state.json", "manifest.json"):
        yield run, f"{newest}/{name}", _resumed
    yield run, METRICS, _resumed
    yield run, ADAPTER, lambda folder: _loaded(load_trained, folder)
    before = load_config(run / CONFIG)
    yield run, CONFIG, lambda folder: _settings(load_config(folder / CONFIG), before)
    plain = "timm" if task == "classification" else "torchvision"
    exported = [(plain, "model.safetensors"), ("onnx", "model.onnx")]
    if task == "classification":
        exported.append((plain, "config.json"))
    for to, file in exported:
        export = out / f"{to}_{task}"
        if not export.exists():
            vl.export(run, to, export, rounds=1)
        yield export, file, lambda folder: _loaded(open_trained, folder)
    if task == "classification":
        for file in ("model.safetensors", "config.json"):
            yield out / "timm_classification", file, lambda folder: _loaded(_base_of_a_run, folder)


def _settings(damaged: RunConfig, before: RunConfig) -> list[str]:
    """A space more or less says the same, and so does another ``out``, which is where the folder was."""
    same = damaged.model_copy(update={"out": before.out}) == before
    return ["the same settings"] if same else changed_settings(damaged, before)


def _resumed(folder: Path) -> list[str]:
    return newest_checkpoint(folder / CHECKPOINTS, folder / METRICS)[1]


def _base_of_a_run(folder: Path) -> None:
    create_classifier(f"local-dir:{folder}", num_classes=4)


def _loaded(load: Callable[[Path], object], folder: Path) -> list[str]:
    load(folder)
    return []


@contextmanager
def damaged(folder: Path, file: str, generator: random.Random) -> Iterator[tuple[Path, str]]:
    """A copy of the folder in which the file has one bit flipped, or is cut; and which."""
    content = bytearray((folder / file).read_bytes())
    place = generator.randrange(len(content))
    if generator.random() < 0.7:
        bit = generator.randrange(8)
        content[place] ^= 1 << bit
        what = f"bit {bit} of byte {place} flipped"
    else:
        del content[place:]
        what = f"cut to {place} bytes"
    with tempfile.TemporaryDirectory(dir=folder.parent) as home:
        copy = shutil.copytree(folder, Path(home) / "copy")
        (copy / file).write_bytes(content)
        yield copy, what
