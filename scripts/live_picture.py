"""Make docs/images/live.png: a detector of the generated street watches things pass; the frame with most numbers.

python scripts/live_picture.py --out docs/images/live.png
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from PIL import Image

from visionlora.cli.footage import footage_options
from visionlora.cli.predict import Outputs, predict
from visionlora.config import check_config
from visionlora.data.video import VideoFrames
from visionlora.data.video_writer import VideoWriter
from visionlora.demo.annotated import write_annotated
from visionlora.demo.base import MEAN, STD, base_path
from visionlora.demo.camera import DAY
from visionlora.demo.traffic import traffic_frame
from visionlora.tasks.protocols import PredictOptions
from visionlora.training.run import train

SIDE, FPS, FRAMES = 448, 10, 30


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    parser.add_argument("--per-class", type=int, default=16, help="scenes of each class to train on")
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = _detector(folder, arguments.per_class, arguments.epochs)
        film = folder / "film.mp4"
        with VideoWriter(film, FPS, (SIDE, SIDE)) as writer:
            for number in range(FRAMES):
                writer.write(traffic_frame(DAY, 3, number / FPS, SIDE))
        watched = footage_options(
            True, ["crossing=130,230,350,230,330,345,60,345"], ["road=224,345,224,200"], None, None, None
        )
        outputs, options = Outputs(folder / "found.jsonl", folder / "drawn"), PredictOptions(min_score=0.45)
        predict(run, [str(film)], outputs, options, watched, [], 1, None, "cpu", skip_unreadable=False, download=False)
        lines = (folder / "found.jsonl").read_text(encoding="utf-8").splitlines()
        numbered = Counter(entry["image_id"] for entry in map(json.loads, lines) if entry["track_id"] is not None)
        best = int(max(numbered, key=lambda name: numbered[name]).rpartition("#")[2])
        for frame in VideoFrames(folder / "drawn" / "film.mp4"):
            if frame.number == best:
                Image.fromarray(frame.image).save(arguments.out, optimize=True)
    return 0


def _detector(folder: Path, per_class: int, epochs: int) -> Path:
    days = {"train": {"day": ["monday"]}, "val": {"day": ["tuesday"]}}
    annotations = write_annotated(folder / "street", DAY, {"monday": per_class, "tuesday": 3}, seed=1)
    config = check_config(
        {
            "task": "detection",
            "model": {
                **{"name": "fcos", "backbone": "test_resnet", "checkpoint": str(base_path()), "mean": MEAN, "std": STD},
                **{"size": 128, "levels": [3, 4, 5]},
            },
            "data": {"annotations": str(annotations), "workers": 0, "augment": "none", **days},
            "train": {"epochs": epochs, "evaluate_every": epochs, "batch_size": 4, "lr": 6e-3, "head_lr": 6e-3},
            "out": str(folder / "run"),
        }
    )
    return train(config).folder


if __name__ == "__main__":
    sys.exit(main())
