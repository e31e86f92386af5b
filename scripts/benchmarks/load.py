"""Seconds and peak memory of starting a run, check-data, frames and predict, by how many images or frames there are."""

import argparse
import io
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from attacks.runs import BASE, MODELS, write_config, write_images
from benchmarks.check_data import generate, write_coco
from visionlora.cli import frame_sets, predict
from visionlora.cli.footage import FootageOptions
from visionlora.config import check_config, load_config
from visionlora.data.checks.check_data import check
from visionlora.data.video_writer import VideoWriter
from visionlora.footage.collecting import NEAR
from visionlora.studies.memory import peak_of_process
from visionlora.tasks.models import Trained
from visionlora.tasks.protocols import PredictOptions
from visionlora.training.run import train

_OBJECTS, _WIDTH, _HEIGHT = 10, 96, 72
"""What is found in each frame, whose size is that."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, nargs="*", default=[25_000, 100_000])
    parser.add_argument("--frames", type=int, nargs="*", default=[2_000, 20_000])
    parser.add_argument("--footage", type=int, nargs="*", default=[2_000, 20_000], help="frames of a recording")
    parser.add_argument("--folder", type=Path, help="where to generate them; by default a temporary folder")


def run(arguments: argparse.Namespace) -> int:
    print(f"{'work':>20} {'of':>16} {'seconds':>9} {'ms each':>9} {'peak MB':>9}")
    for count in arguments.images:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            folders = Path(name) / "set"
            coco = write_coco(Path(name), generate(folders, count))
            parts = {part: {"part": [part]} for part in ("train", "val")}
            for task, data in (
                ("classification", {"root": str(folders)}),
                ("detection", {"annotations": str(coco), **parts}),
            ):
                _show(f"start {task}", f"{count} images", count, start, task, data, Path(name) / f"run_{task}")
            for layout, path in (("class folders", folders), ("COCO", coco)):
                _show(f"check {layout}", f"{count} images", count, check, path)
    for count in arguments.footage:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            video = _video(Path(name) / f"{count}.mp4", count)
            for near in (-1, NEAR):
                _show(f"frames --near {near}", f"{count} frames", count, save_frames, video, near)
    if arguments.frames:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            detector = _detector(Path(name))
            for count in arguments.frames:
                video = _video(Path(name) / f"{count}.mp4", count)
                _show("predict", f"{count} frames", count, predict_video, detector, video)
                found = video.with_suffix(".jsonl").read_text(encoding="utf-8").count("\n")
                assert found == _OBJECTS * count, f"{found} objects in {count} frames"
    return 0


def start(task: str, data: dict[str, Any], out: Path) -> None:
    """All that a run does before its first step."""

    class Reached(Exception):
        pass

    config = check_config({"task": task, "model": {**BASE, **MODELS[task]}, "data": data, "out": str(out)})
    with patch("visionlora.training.run.fit", side_effect=Reached) as fit, suppress(Reached):
        train(config, quiet=True)
    assert fit.called


def save_frames(video: Path, near: int) -> None:
    """``visionlora frames VIDEO --every 1 --near NEAR``."""
    out = video.with_suffix(f".{near}")
    frame_sets.collect([video], out, frame_sets.Every(), near)
    with (out / "frames.jsonl").open("rb") as file:
        kept = sum(1 for _ in file)
    assert kept == int(video.stem) or near >= 0, f"{kept} frames of {video}"


def predict_video(run: Path, video: Path) -> None:
    """``visionlora predict RUN VIDEO --out FILE`` with a detector that finds ten objects everywhere."""
    opened = predict.open_trained

    def with_objects(*given: Any) -> Trained[Any, Any]:
        trained = opened(*given)
        trained.model.score_thresh, trained.model.detections_per_img = 0.0, _OBJECTS
        return trained

    outputs, options = predict.Outputs(out=video.with_suffix(".jsonl")), PredictOptions(min_score=0.0)
    with patch.object(predict, "open_trained", with_objects):
        predict.predict(
            *(run, [str(video)], outputs, options, FootageOptions(), [], 1, None, "cpu"),
            skip_unreadable=False,
            download=False,
        )


def apart(work: Callable[..., object], *given: object) -> tuple[float, float]:
    """Seconds and peak MB of a call in a process of its own. Linux tells the memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, *given))


def _measured(work: Callable[..., object], *given: object) -> tuple[float, float]:
    began = time.perf_counter()
    with redirect_stdout(io.StringIO()):
        work(*given)
    seconds = time.perf_counter() - began
    return seconds, peak_of_process() / 1e6


def _show(what: str, of: str, count: int, work: Callable[..., object], *given: object) -> None:
    seconds, peak = apart(work, *given)
    print(f"{what:>20} {of:>16} {seconds:>9.1f} {1000 * seconds / count:>9.3f} {peak:>9.0f}", flush=True)


def _detector(folder: Path) -> Path:
    """A run's folder."""
    write_images(folder / "images")
    config = write_config(folder / "images", "detection", folder / "detector", workers=0)
    return train(load_config(config, ["train.epochs=1"]), quiet=True).folder


def _video(path: Path, frames: int) -> Path:
    """A few blocks of colour that move."""
    blocks = np.random.default_rng(0).integers(0, 256, (_HEIGHT // 12, _WIDTH // 12, 3), dtype=np.uint8)
    picture = blocks.repeat(12, 0).repeat(12, 1)
    with VideoWriter(path, 25, (_WIDTH, _HEIGHT)) as writer:
        for number in range(frames):
            writer.write(np.roll(picture, number, axis=1))
    return path
