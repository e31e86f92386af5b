"""``visionlora pick`` copies the most different images, with what is known of them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from helpers.squares import Command
from visionlora.models.classifier import create_classifier


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "base.safetensors"
    save_file(create_classifier("test_resnet", 1000, pretrained=False).model.state_dict(), path)
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Three scenes, each with three nearly equal frames, and a list of all but one."""
    rng = np.random.default_rng(0)
    lines = []
    (tmp_path / "site" / "images").mkdir(parents=True)
    for scene in range(3):
        plain = rng.integers(0, 256, (6, 6, 3)).repeat(16, 0).repeat(16, 1)
        for number in range(3):
            image = np.clip(plain + rng.integers(-5, 6, plain.shape), 0, 255).astype(np.uint8)
            name = f"images/gate_{scene}_{number:06d}.png"
            Image.fromarray(image).save(tmp_path / "site" / name)
            entry = {"file": name, "camera": "gate", "recording": str(scene), "frame": number, "seconds": 1.0 * number}
            lines.append(json.dumps({**entry, "time": None, "light": "day"}))
    (tmp_path / "site" / "frames.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    return tmp_path / "site"


def test_one_frame_of_each_scene_is_copied_and_stays_known(
    tmp_path: Path, frames: Path, weights: Path, visionlora: Command
) -> None:
    out = tmp_path / "out"
    command = ("pick", frames, "--count", 3, "--model", "test_resnet", "--checkpoint", weights)
    done = visionlora(*command, "--out", out)
    assert done.code == 0, done.err
    assert f"3 of 9 images copied to {out}" in done.out
    with (out / "picked.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert {row["file"].split("_")[1] for row in rows} == {"0", "1", "2"}
    for row in rows:
        assert (out / row["file"]).read_bytes() == (frames / "images" / row["file"]).read_bytes()
    listed = {json.loads(line)["file"]: json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()}
    assert set(listed) == {row["file"] for row in rows} - {"gate_2_000002.png"}
    assert all(entry["recording"] == name.split("_")[1] for name, entry in listed.items())
    again = visionlora(*command, "--out", tmp_path / "again")
    assert again.code == 0
    assert (tmp_path / "again" / "picked.csv").read_bytes() == (out / "picked.csv").read_bytes()


def test_the_model_of_a_config(tmp_path: Path, frames: Path, weights: Path, visionlora: Command) -> None:
    config = tmp_path / "yard.yaml"
    config.write_text(f"task: detection\nmodel: {{name: fcos, backbone: test_resnet, checkpoint: {weights}}}\n")
    assert visionlora("pick", frames, "--count", 3, "--config", config, "--out", tmp_path / "a").code == 0
    named = ("--model", "test_resnet", "--checkpoint", weights)
    assert visionlora("pick", frames, "--count", 3, *named, "--out", tmp_path / "b").code == 0
    assert (tmp_path / "a" / "picked.csv").read_bytes() == (tmp_path / "b" / "picked.csv").read_bytes()


def test_what_cannot_be_picked_is_refused(tmp_path: Path, frames: Path, weights: Path, visionlora: Command) -> None:
    model = ("--model", "test_resnet", "--checkpoint", weights)
    cases = {
        "there are 9 images to pick from": (frames, "--count", 10, *model),
        "what is to look at the images": (frames, "--count", 2),
        "no such image or folder": (tmp_path / "none", "--count", 2, *model),
        "unknown model": (frames, "--count", 2, "--model", "test_resnett"),
    }
    for message, command in cases.items():
        done = visionlora("pick", *command, "--out", tmp_path / "out")
        assert (done.code, message in done.err) == (2, True), done.err
    (frames / "more").mkdir()
    (frames / "more" / "gate_0_000000.png").write_bytes((frames / "images" / "gate_0_000000.png").read_bytes())
    done = visionlora("pick", frames, "--count", 2, *model, "--out", tmp_path / "out")
    assert done.code == 2 and "gate_0_000000.png are those of several images" in done.err
    assert not (tmp_path / "out").exists()
