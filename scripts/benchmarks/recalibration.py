"""A classifier before a camera's light changed, recalibrated on frames without labels, adapted with a few, and both."""

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.corruptions import CORRUPTIONS
from visionlora.config import check_config, dump_config, load_config
from visionlora.data.folders import images_in
from visionlora.data.images import read_image
from visionlora.footage.recalibrating import recalibrate_on_footage
from visionlora.tasks.evaluation import score
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import load_trained
from visionlora.training.run import train

WAYS = ("before", "recalibrated", "LoRA", "both")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, help="train/<class>/<image> and val/<class>/<image>")
    parser.add_argument("--model", default="tf_efficientnet_lite0", help="of timm, with BatchNorm")
    parser.add_argument("--checkpoint", type=Path, help="its weights; without, random ones")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--labelled", type=int, default=20, help="images of each class that LoRA gets")
    parser.add_argument("--epochs", type=int, default=4, help="of the clean run; LoRA's are twice as many")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--corruptions", nargs="*", default=["night", "fog", "noise", "blur"], choices=CORRUPTIONS)
    parser.add_argument("--set", nargs="*", default=[], help="further settings of the runs, such as model.mean=...")


def run(arguments: argparse.Namespace) -> int:
    print(f"top-1 on {arguments.root.name}, seeds {arguments.seeds}, and their mean")
    _row(["", *WAYS])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clean = [_trained(arguments, arguments.root, folder / f"clean_{seed}", seed, 1) for seed in arguments.seeds]
        scores = [_top1(one, arguments.root) for one in clean]
        _row(["clean", _shown(scores)])
        for corruption in arguments.corruptions:
            rows: dict[str, list[float]] = {way: [] for way in WAYS}
            for seed, before in zip(arguments.seeds, clean, strict=True):
                whole = _corrupted(arguments.root, folder / f"{corruption}_{seed}", corruption, seed)
                few = _few(whole, folder / f"{corruption}_{seed}_few", arguments.labelled)
                adapted = _trained(arguments, few, folder / f"lora_{corruption}_{seed}", seed, 2)
                for way, start in (("before", before), ("LoRA", adapted)):
                    rows[way].append(_top1(start, whole))
                for way, start in (("recalibrated", before), ("both", adapted)):
                    rows[way].append(_top1(_recalibrated(start, whole), whole))
                shutil.rmtree(whole)
            _row([corruption, *(_shown(rows[way]) for way in WAYS)])
    return 0


def _row(cells: list[str]) -> None:
    print(f"{cells[0]:>8}" + "".join(f"{cell:>28}" for cell in cells[1:]), flush=True)


def _shown(values: list[float]) -> str:
    return f"{' '.join(f'{value:.3f}' for value in values)}  {mean(values):.3f}"


def _trained(arguments: argparse.Namespace, root: Path, out: Path, seed: int, longer: int) -> Path:
    """A run's adapter."""
    values: dict[str, Any] = {
        "task": "classification",
        "model": {"name": arguments.model, "pretrained": False, "img_size": arguments.size},
        "data": {"root": str(root), "workers": 0},
        "train": {
            "epochs": longer * arguments.epochs,
            "evaluate_every": longer * arguments.epochs,
            "batch_size": 8,
            "seed": seed,
        },
        "out": str(out),
    }
    if arguments.checkpoint:
        values["model"] |= {"checkpoint": str(arguments.checkpoint)}
    config = out.with_suffix(".yaml")
    config.write_text(dump_config(check_config(values)), encoding="utf-8")
    train(load_config(config, arguments.set), quiet=True)
    return out / "adapter.safetensors"


def _corrupted(root: Path, out: Path, name: str, seed: int) -> Path:
    """The same folders, each image as the camera would see it now."""
    generator = np.random.default_rng(seed)
    for path in images_in(root):
        target = (out / path.relative_to(root)).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(CORRUPTIONS[name](read_image(path), generator)).save(target)
    return out


def _few(root: Path, out: Path, count: int) -> Path:
    """The first images of each class to train on, and all to validate on."""
    out.mkdir()
    (out / "val").symlink_to(root / "val")
    for folder in sorted((root / "train").iterdir()):
        (out / "train" / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:count]:
            (out / "train" / folder.name / path.name).symlink_to(path)
    return out


def _recalibrated(adapter: Path, root: Path) -> Path:
    """A new file beside it, with BatchNorm measured on all images to train on; their classes aren't looked at."""
    paths = images_in(root / "train")
    out = adapter.with_name("recalibrated.safetensors")

    def frames() -> Iterator[np.ndarray]:
        return (read_image(path) for path in paths)

    recalibrate_on_footage(load_trained(adapter, merged=False), frames, len(paths), out)
    return out


def _top1(adapter: Path, root: Path) -> float:
    trained = load_trained(adapter)
    config = load_config(adapter.parent / "config.yaml", [f"data.root={root}"])
    images = task_of("classification").images(config, "val", trained.classes).data
    return score(trained, images, batch_size=16).scores()["top1"]
