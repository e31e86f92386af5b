"""The model's input, with and without augmentation."""

import hashlib
import json
import pickle
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from visionlora.data.augmentations import STRENGTHS
from visionlora.data.classification.transforms import Preprocessing, eval_transform, train_transform
from visionlora.errors import InputError

PRE = Preprocessing(
    height=48, width=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic", crop_pct=0.9
)
RANDOM_STRENGTHS = [strength for strength in STRENGTHS if strength != "none"]


def scene(height: int = 150, width: int = 210) -> np.ndarray:
    """Smooth shapes, edges and fine texture, (height, width, 3) uint8."""
    generator = np.random.default_rng(5)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    image = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    image[height // 3 : height // 2, width // 4 : width // 2] += 60
    image += generator.integers(-20, 20, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def digest(strength: str, seeds: range) -> str:
    transform = train_transform(PRE, strength)
    return hashlib.sha256(b"".join(transform(scene(), seed).numpy().tobytes() for seed in seeds)).hexdigest()


@pytest.mark.parametrize("size", [(150, 210), (400, 300), (30, 20), (1, 70)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"input_size": (3, 48, 64)},
        {"interpolation": "bilinear", "crop_pct": 1.0},
        {"crop_mode": "squash"},
        {"crop_mode": "border", "crop_pct": 1.0},
        {"mean": (0.1, 0.4, 0.7), "std": (0.2, 0.3, 0.4)},
    ],
    ids=str,
)
def test_evaluation_equals_timm(size: tuple[int, int], changes: dict) -> None:
    model = timm.create_model("test_vit")
    config = {**timm.data.resolve_data_config({}, model=model), **changes}
    theirs = timm.data.create_transform(**config, is_training=False)(Image.fromarray(scene(*size)))
    ours = eval_transform(Preprocessing.from_timm(config))(scene(*size))
    assert ours.dtype == torch.float32
    assert ours.shape == config["input_size"]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_preprocessing_survives_json() -> None:
    assert Preprocessing.from_dict(json.loads(json.dumps(PRE.to_dict()))) == PRE


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"interpolation": "bicubik"}, "unknown interpolation 'bicubik' (did you mean 'bicubic'?)"),
        ({"crop_mode": "centre"}, "unknown crop_mode 'centre' (did you mean 'center'?)"),
        ({"height": 0}, "height is 0"),
        ({"crop_pct": 0.0}, "crop_pct"),
        ({"std": (1.0, 0.0, 1.0)}, "positive stds"),
        ({"mean": (0.5,)}, "three numbers"),
        ({"colour": "red"}, "missing or unknown: colour"),
    ],
)
def test_preprocessing_that_cannot_be_used_is_refused(changes: dict, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        Preprocessing.from_dict({**PRE.to_dict(), **changes})
    assert expected in str(caught.value)


def test_models_without_rgb_input_are_refused() -> None:
    config = timm.data.resolve_data_config({}, model=timm.create_model("test_vit"))
    with pytest.raises(InputError, match="1-channel"):
        Preprocessing.from_timm({**config, "input_size": (1, 32, 32)})


def test_strength_none_is_the_evaluation() -> None:
    assert torch.equal(train_transform(PRE, "none")(scene(), 3), eval_transform(PRE)(scene()))


def test_an_unknown_strength_is_refused() -> None:
    with pytest.raises(InputError, match=r"'lihgt' \(did you mean 'light'\?\); there are none, light, strong"):
        train_transform(PRE, "lihgt")


@pytest.mark.parametrize("strength", RANDOM_STRENGTHS)
@pytest.mark.parametrize("size", [(150, 210), (20, 30), (1, 9)])
def test_augmented_images_have_the_input_shape(strength: str, size: tuple[int, int]) -> None:
    transform = train_transform(PRE, strength)
    for seed in range(20):
        tensor = transform(scene(*size), seed)
        assert tensor.shape == (3, 48, 64)
        assert tensor.dtype == torch.float32
        assert tensor.min() >= -1
        assert tensor.max() <= 1


@pytest.mark.parametrize("strength", RANDOM_STRENGTHS)
def test_augmentation_is_a_function_of_image_and_seed(strength: str) -> None:
    transform = train_transform(PRE, strength)
    first = {seed: transform(scene(), seed) for seed in range(40)}
    copied = pickle.loads(pickle.dumps(transform))
    for seed in reversed(range(40)):
        assert torch.equal(transform(scene(), seed), first[seed])
        assert torch.equal(copied(scene(), seed), first[seed])
    assert len({tensor.numpy().tobytes() for tensor in first.values()}) == 40


@pytest.mark.parametrize("strength", RANDOM_STRENGTHS)
def test_augmentation_leaves_its_input_and_global_random_state_alone(strength: str) -> None:
    image = scene()
    random.seed(1)
    np.random.seed(1)
    before = (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())
    here = digest(strength, range(30))
    assert before == (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())
    random.seed(2)
    np.random.seed(2)
    assert digest(strength, range(30)) == here
    transform = train_transform(PRE, strength)
    for seed in range(30):
        transform(image, seed)
    assert np.array_equal(image, scene())


def test_another_process_augments_alike_and_asks_no_network() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): sys.exit('opened a connection')\n"
        "socket.socket.connect = refuse\n"
        "import urllib.request; urllib.request.OpenerDirector.open = refuse\n"
        "sys.path.insert(0, sys.argv[1]); import test_transforms as t\n"
        "print(*(t.digest(strength, range(10)) for strength in t.RANDOM_STRENGTHS))"
    )
    folder = __file__.rsplit("/", 1)[0]
    run = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, env={})
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [digest(strength, range(10)) for strength in RANDOM_STRENGTHS]


def test_the_transforms_of_one_call_draw_independently() -> None:
    """albumentations' own reseeding gives each transform the same numbers: every grey image would be flipped."""
    ramp = np.zeros((60, 80, 3), np.uint8)
    ramp[:, :, 0] = np.linspace(40, 200, 80)
    ramp[:, :, 1] = 90
    transform = train_transform(PRE, "strong")
    flipped = {True: 0, False: 0}
    for seed in range(300):
        red, _, blue = transform(ramp, seed)
        if torch.equal(red, blue):
            row = red.median(dim=0).values  # (W,), past dropped-out holes
            flipped[bool(row[:20].mean() > row[-20:].mean())] += 1
    assert min(flipped.values()) >= 10


def test_training_crops_shrink_without_aliasing() -> None:
    """Stripes of one pixel become grey, as in the evaluation; an interpolation that skips pixels keeps stripes."""
    stripes = np.zeros((480, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    light = train_transform(replace(PRE, interpolation="bilinear"), "light")
    assert max(float(light(stripes, seed).std(dim=(1, 2)).max()) for seed in range(20)) < 0.05
