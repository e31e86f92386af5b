"""A run knows what its pictures look like, `predict` tells when they change, and `recalibrate` fits the adapter."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers.finders import write_finder
from helpers.squares import Command, write_config, write_squares
from visionlora.adapters.header import read_header
from visionlora.data.images import read_image
from visionlora.data.picture_statistics import PictureStatistics
from visionlora.data.video_writer import VideoWriter
from visionlora.footage import recalibrating
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import load_trained
from visionlora.training.state import RunState


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run over 21 squares, ``run``, and another camera's 24 darker ones in ``dark/val``."""
    from visionlora.config import load_config
    from visionlora.training.run import train

    folder = tmp_path_factory.mktemp("camera")
    write_squares(folder / "data" / "train", 7, seed=0)
    write_squares(folder / "data" / "val", 8, seed=1)
    train(load_config(write_config(folder, folder / "data"), ["train.epochs=3"]), quiet=True)
    for path in sorted((folder / "data" / "val").rglob("*.png")):
        target = folder / "dark" / "val" / path.relative_to(folder / "data" / "val")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((read_image(path) * 0.3 + 10).astype(np.uint8)).save(target)
    return folder


def about(path: Path) -> dict[str, Any]:
    return read_header(path).extra


def clip_of(path: Path, images: list[np.ndarray]) -> Path:
    """A frame a second."""
    with VideoWriter(path, 1, (images[0].shape[1], images[0].shape[0])) as writer:
        for image in images:
            writer.write(image)
    return path


def test_a_runs_file_says_what_its_images_look_like(camera: Path) -> None:
    kept = PictureStatistics.from_dict(about(camera / "run" / "adapter.safetensors")["pictures"])
    images = [read_image(path) for path in sorted((camera / "data" / "train").rglob("*.png"))]
    expected = PictureStatistics.of(images)
    assert expected is not None and kept.images == 21
    assert np.allclose(kept.mean, expected.mean, rtol=1e-4, atol=1e-4)


def test_images_that_are_few_or_gone_are_no_obstacle(camera: Path, tmp_path: Path) -> None:
    paths = sorted((camera / "data" / "train").rglob("*.png"))

    def pictures(files: list[Path]) -> Any:
        state = SimpleNamespace(setup=SimpleNamespace(train=1), task=SimpleNamespace(files=lambda _data: files))
        return RunState.pictures.func(state)  # type: ignore[arg-type]

    assert pictures(paths[:19]) is None
    assert pictures([*paths, *paths, tmp_path / "gone.png"])["images"] == 21


def test_predict_tells_of_footage_that_looks_otherwise(visionlora: Command, camera: Path, tmp_path: Path) -> None:
    images = [read_image(path) for path in sorted((camera / "data" / "val").rglob("*.png"))]
    mixed = [images[place % 3 * 8 + place // 3] for place in range(24)]  # as a camera would see all classes
    same = visionlora("predict", camera / "run", clip_of(tmp_path / "same.mp4", mixed))
    assert (same.code, same.err) == (0, "") and "alarm" not in same.out
    blurred = [cv2.GaussianBlur(image, (0, 0), 3) // 4 for image in mixed]
    other = visionlora("predict", camera / "run", clip_of(tmp_path / "other.mp4", blurred))
    assert other.code == 0 and "alarm: the picture is not as in training" in other.out
    assert "other.mp4: 14 s in, alarm" in other.out.replace("\n", "")


def test_damaged_statistics_end_in_one_line(visionlora: Command, camera: Path, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "clip.mp4", [np.zeros((64, 64, 3), np.uint8)])
    finder = write_finder(tmp_path, pictures={"images": 20})
    refused = visionlora("predict", finder, clip)
    assert refused.code == 2 and "finder.safetensors: statistics of pictures: mean is damaged" in refused.err


def test_recalibrating_writes_the_statistics_of_the_new_camera(
    visionlora: Command, camera: Path, tmp_path: Path
) -> None:
    out = tmp_path / "dark.safetensors"
    outcome = visionlora("recalibrate", camera / "run", camera / "dark" / "val", "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    assert "measured on 24 images" in outcome.out and "not checked on labelled frames" in outcome.out
    old, new = load_file(camera / "run" / "adapter.safetensors"), load_file(out)
    factors = [key for key in old if ".lora_" in key or "lora" in key]
    assert factors and all(torch.equal(old[key], new[key]) for key in factors)
    # Against BatchNorm's own arithmetic, on the first layer: what enters it comes from adapted weights alone.
    trained = load_trained(out)
    paths = sorted((camera / "dark" / "val").rglob("*.png"))
    batch = torch.stack([task_of("classification").to_input(read_image(one), trained.preprocessing) for one in paths])
    seen: list[torch.Tensor] = []
    name, layer = next((n, m) for n, m in trained.model.named_modules() if isinstance(m, torch.nn.BatchNorm2d))
    layer.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        trained.model(batch)
    assert torch.allclose(layer.running_mean, seen[0].mean(dim=(0, 2, 3)), atol=1e-5), name  # type: ignore[arg-type]
    kept = PictureStatistics.from_dict(about(out)["pictures"])
    assert kept.images == 24
    assert kept.mean[0] < PictureStatistics.from_dict(about(camera / "run" / "adapter.safetensors")["pictures"]).mean[0]
    again = visionlora("recalibrate", camera / "run", camera / "dark" / "val", "--out", out)
    assert again.code == 2 and "is there already" in again.err


def test_a_video_is_taken_as_well(visionlora: Command, camera: Path, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "clip.mp4", [read_image(path) for path in (camera / "dark" / "val").rglob("*.png")])
    assert visionlora("recalibrate", camera / "run", clip, "--out", tmp_path / "a.safetensors").code == 0


def test_labelled_frames_decide(
    visionlora: Command, camera: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled = ("--set", f"data.root={camera / 'dark'}", "--part", "val")
    out = tmp_path / "dark.safetensors"
    before = visionlora(
        "eval", camera / "run", f"data.root={camera / 'dark'}", "--part", "val", "--out", tmp_path / "b"
    )
    assert before.code == 0
    outcome = visionlora("recalibrate", camera / "run", camera / "dark" / "val", "--out", out, *labelled)
    assert (outcome.code, outcome.err) == (0, "")
    scored = json.loads((tmp_path / "b").read_text())["scores"]
    after = visionlora("eval", out, f"data.root={camera / 'dark'}", "--part", "val", "--out", tmp_path / "a")
    assert after.code == 0
    found = json.loads((tmp_path / "a").read_text())["scores"]
    assert about(out)["scores"] == pytest.approx(found) and found["top1"] >= scored["top1"]
    assert f"{scored['loss']:.4f}" in outcome.out and f"{found['loss']:.4f}" in outcome.out

    answers = iter([("top1", {"top1": 0.9}), ("top1", {"top1": 0.8999})])
    monkeypatch.setattr(recalibrating, "_scored", lambda *_arguments: next(answers))
    worse = tmp_path / "worse.safetensors"
    refused = visionlora("recalibrate", camera / "run", camera / "dark" / "val", "--out", worse, *labelled)
    assert refused.code == 2 and refused.err.count("\n") == 1
    assert "not written, for on 24 labelled images top1 falls from 0.9000 to 0.8999" in refused.err
    assert not worse.exists()


def test_what_can_not_be_recalibrated_is_refused_in_one_line(visionlora: Command, camera: Path, tmp_path: Path) -> None:
    dark = camera / "dark" / "val"
    for arguments, said in (
        ((camera / "run", dark, "--out", tmp_path / "x.pt"), "let the name end in .safetensors"),
        ((camera / "run", tmp_path / "none", "--out", tmp_path / "x.safetensors"), "no such image or folder"),
        (
            (camera / "run", dark / "red" / "0.png", "--out", tmp_path / "x.safetensors"),
            "give batches of several images",
        ),
    ):
        refused = visionlora("recalibrate", *arguments)
        assert refused.code == 2 and refused.err.count("\n") == 1 and said in refused.err, refused.err
    assert not (tmp_path / "x.safetensors").exists()
