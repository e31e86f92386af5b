"""Train each task for 50 steps in one process, in two, and in one that adds up each batch in another order.

The last one shows what of the difference is rounding. python scripts/compare_processes.py --out compared
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from attacks.runs import TASKS, write_config, write_images
from visionlora.config import load_config
from visionlora.tasks.classification.training import ClassificationTraining
from visionlora.tasks.detection.training import DetectionTraining
from visionlora.tasks.segmentation.training import SegmentationTraining
from visionlora.training.run import train

STEPS = ["train.epochs=25", "train.evaluate_every=25", "train.lr=1e-3", "train.head_lr=1e-3"]
"""Two steps an epoch."""
TRAININGS: dict[str, Any] = {
    "classification": ClassificationTraining,
    "detection": DetectionTraining,
    "segmentation": SegmentationTraining,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="an absent folder")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True)
    write_images(arguments.out / "images")
    print("largest difference of a loss from one process's, over 50 steps, and the scores")
    for task in arguments.tasks:
        folders = {name: arguments.out / f"{task}_{name}" for name in ("one", "two", "reversed")}
        config = write_config(arguments.out / "images", task, folders["one"], workers=0)
        settings = [*STEPS, "train.device=cpu", *(["model.drop_rate=0"] if task == "classification" else [])]
        train(load_config(config, settings), quiet=True)
        command = [sys.executable, "-m", "visionlora", "train", "--config", str(config), *settings]
        subprocess.run([*command, f"out={folders['two']}", "train.devices=2"], check=True, stdout=subprocess.DEVNULL)
        plain = TRAININGS[task].train_batches
        TRAININGS[task].train_batches = lambda self, epoch, plain=plain: [b[::-1] for b in plain(self, epoch)]
        train(load_config(config, [*settings, f"out={folders['reversed']}"]), quiet=True)
        TRAININGS[task].train_batches = plain
        for name, folder in folders.items():
            far = max(abs(a - b) for a, b in zip(losses(folders["one"]), losses(folder), strict=True))
            scores = json.loads((folder / "report.json").read_text())["scores"]
            shown = "  ".join(f"{key} {value:.6f}" for key, value in scores.items())
            print(f"{task:15} {name:9} {far:.1e}  {shown}", flush=True)
    return 0


def losses(folder: Path) -> list[float]:
    """Of each step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


if __name__ == "__main__":
    sys.exit(main())
