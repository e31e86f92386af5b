import json

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from visionlora.demo.base import ARCHITECTURE, INPUT_SIZE, MEAN, STD, base_path
from visionlora.demo.scenes import CLASSES, DAY, NIGHT, make_scene


@pytest.fixture(scope="module")
def model():
    model = timm.create_model(ARCHITECTURE, num_classes=len(CLASSES))
    model.load_state_dict(load_file(base_path()), strict=True)
    return model.eval()


def accuracy(model, camera, count):
    scenes = [make_scene(camera, seed=77, index=index, size=INPUT_SIZE[1]) for index in range(count)]
    images = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2) / 255
    images = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        answers = model(images).argmax(1)
    return (answers == torch.tensor([scene.label for scene in scenes])).float().mean().item()


def test_the_shipped_file_is_small_and_float16():
    assert base_path().stat().st_size < 1_500_000
    floats = [tensor for tensor in load_file(base_path()).values() if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in floats} == {torch.float16}
    assert all(tensor.isfinite().all() for tensor in floats)


def test_the_header_says_what_the_file_is():
    with safe_open(base_path(), framework="pt") as file:
        header = file.metadata()
    assert header["architecture"] == ARCHITECTURE
    assert tuple(json.loads(header["classes"])) == CLASSES
    assert tuple(json.loads(header["input_size"])) == INPUT_SIZE
    assert tuple(json.loads(header["mean"])) == MEAN
    assert tuple(json.loads(header["std"])) == STD
    assert "train_demo_base.py" in header["made_by"]
    assert float(header["day_accuracy"]) >= 0.93


def test_the_base_knows_the_day_camera_and_is_lost_on_the_night_camera(model):
    day, night = accuracy(model, DAY, 204), accuracy(model, NIGHT, 204)
    chance = 1 / len(CLASSES)
    assert chance < night < day - 0.2
    assert day > chance + 0.5
