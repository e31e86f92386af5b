"""The segmentation task: its batches, its loss, its evaluation samples and how images reach the model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.segmentation_runs import COLOURS, HEIGHT, VALUES, WIDTH, make_masks, make_segmentation_config, save
from visionlora.data.segmentation.class_map import IGNORE
from visionlora.errors import InputError
from visionlora.tasks.models import Trained
from visionlora.tasks.segmentation.config import SegmenterSection
from visionlora.tasks.segmentation.inference import (
    SegmenterInput,
    TrainedSegmenter,
    evaluation_loader,
    evaluation_set,
    segment,
)
from visionlora.tasks.segmentation.losses import cross_entropy, dice, median_frequency_weights
from visionlora.tasks.segmentation.task import TASK
from visionlora.training.run import monitored

CPU = torch.device("cpu")
PLAIN = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine landscapes and two portraits to train on, four landscapes and a portrait to validate."""
    root = make_masks(tmp_path_factory.mktemp("scenes"), train=9, val=4)
    for part, numbers in (("train", (2, 5)), ("val", (1,))):
        for number in numbers:
            pixels = np.full((WIDTH, HEIGHT, 3), 120, np.uint8)
            save(root / part / "images" / f"{number:02}_tall.png", pixels)
            save(root / part / "masks" / f"{number:02}_tall.png", np.full((WIDTH, HEIGHT), 3, np.uint8))
    return root


def set_up(scenes: Path, data: dict[str, Any] | None = None, **train: Any) -> Any:
    """What the task makes of a config."""
    return TASK.set_up(make_segmentation_config(scenes, Path("unused"), None, data, **train))


def trained_of(setup: Any, model: nn.Module, shown: SegmenterInput | None = None) -> TrainedSegmenter:
    built = replace(setup.built, model=model)
    return Trained("segmentation", built, setup.classes, shown or setup.preprocessing, Path(), {})


def test_the_loss_is_the_weighted_sum_of_those_asked_for(scenes: Path) -> None:
    settings = {"loss": {"cross_entropy": 2, "dice": 0.5}, "class_weights": "median_frequency"}
    task = set_up(scenes, **settings).training
    batch = next(iter(task.train_loader(task.train_batches(0))))
    model = nn.Conv2d(3, 3, 1)
    weights = median_frequency_weights([image.pixels for image in task.train_set.data.images])
    assert weights.min() < 1 < weights.max()
    logits = model(batch["image"]).detach()
    summands = 2 * cross_entropy(logits, batch["target"], weights), 0.5 * dice(logits, batch["target"])
    assert torch.allclose(task.loss(model, batch), sum(summands, torch.zeros(())))
    assert {name: float(value) for name, value in task.loss_parts.items()} == {
        "cross_entropy": pytest.approx(float(summands[0])),
        "dice": pytest.approx(float(summands[1])),
    }
    alone = set_up(scenes).training
    assert torch.allclose(alone.loss(model, batch), cross_entropy(logits, batch["target"]))
    assert alone.loss_parts == {}


def test_an_epoch_shows_every_image_once_by_shape_and_follows_from_seed_and_epoch(scenes: Path) -> None:
    first, second = set_up(scenes, batch_size=2).training, set_up(scenes, batch_size=2).training
    second.train_batches(7)
    for epoch in (0, 1):
        keys = first.train_batches(epoch)
        shown = [index for batch in keys for _, index in batch]
        assert len(set(shown)) == len(shown) == 10  # of 11, the last one would be a batch of its own
        tall = [[first.train_set.data.images[i].height == WIDTH for _, i in batch] for batch in keys]
        assert all(len(set(batch)) == 1 for batch in tall)
        assert second.train_batches(epoch) == keys
    assert first.train_batches(0) != set_up(scenes, batch_size=2, seed=1).training.train_batches(0)


def test_crops_have_one_size_whatever_the_images(scenes: Path) -> None:
    for crop, size in ((48, (48, 48)), ([32, 64], (32, 64))):
        task = set_up(scenes, {"crop": crop, "augment": "surveillance"}, batch_size=5).training
        for batch in task.train_loader(task.train_batches(0)):
            assert batch["image"].shape[2:] == batch["target"].shape[1:] == size
            assert set(batch["target"].unique().tolist()) <= {0, 1, 2, IGNORE}


def test_validation_batches_have_one_shape_and_whole_targets(scenes: Path) -> None:
    setup = set_up(scenes)
    batches = list(TASK.loader(trained_of(setup, setup.built.model), setup.val, 3, 0))
    assert [len(batch["image"]) for batch in batches] == [3, 1, 1]
    for batch in batches:
        for target in batch["target"]:
            assert sorted(target.shape) == [HEIGHT, WIDTH]
            assert torch.equal(torch.tensor(target.shape), torch.tensor(batch["image"].shape[2:]))


class Knowing(nn.Module):
    """Gives each pixel the class whose colour is nearest to it."""

    def __init__(self, shown: SegmenterInput) -> None:
        super().__init__()
        colours = torch.tensor(list(COLOURS.values())) / 255
        self.colours = (colours - torch.tensor(shown.mean)) / torch.tensor(shown.std)

    def forward(self, images: Tensor) -> Tensor:
        return -(images[:, None] - self.colours[None, :, :, None, None]).square().sum(dim=2)


@pytest.mark.parametrize(("size", "window"), [(WIDTH, None), (2 * WIDTH, None), (2 * WIDTH, 64), (WIDTH, 200)])
def test_perfect_outputs_score_one_in_the_files_pixels(scenes: Path, size: int, window: int | None) -> None:
    setup = set_up(scenes)
    shown = SegmenterInput(size, setup.preprocessing.mean, setup.preprocessing.std, window, 16 if window else 0)
    trained = trained_of(setup, Knowing(shown), shown)
    predictor, metrics = TASK.predictor(trained), TASK.metrics(trained, setup.val, CPU)
    for batch in evaluation_loader(evaluation_set(setup.val, shown), batch_size=2, workers=0):
        metrics.update(predictor(batch["image"]), batch["target"])
    assert metrics.scores()["mIoU"] > (0.99 if size == WIDTH else 0.9)
    assert sum(map(sum, metrics.confusion())) == sum(setup.val.counts())


def test_images_of_all_sizes_are_segmented_in_order(scenes: Path) -> None:
    shown = SegmenterInput(64, **PLAIN)
    generator, sizes = np.random.default_rng(0), [(64, 96), (64, 96), (40, 30), (64, 96), (1, 50), (33, 2)]
    pictures = [generator.integers(0, 255, (h, w, 3), dtype=np.uint8) for h, w in sizes]
    found = segment(Knowing(shown), pictures, shown, CPU, batch_size=1)
    assert [mask.shape for mask in found] == sizes
    for one, other in zip(found, segment(Knowing(shown), pictures, shown, CPU, batch_size=4), strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(found[3], segment(Knowing(shown), pictures[3:4], shown, CPU)[0])


def test_what_a_file_says_of_the_classes(scenes: Path) -> None:
    setup = set_up(scenes)
    about = TASK.describe(setup.val, TASK.metrics(trained_of(setup, setup.built.model), setup.val, CPU))
    assert about == {"colors": [list(color) for color in COLOURS.values()], "values": VALUES}


def test_a_wholly_trained_segmenter_needs_no_other_weights() -> None:
    section = SegmenterSection(name="unet", backbone="test_resnet", checkpoint=Path("base.pth"))
    plain = TASK.without_base(section, Path("run/model.safetensors"))
    assert (plain.checkpoint, plain.pretrained, plain.backbone) == (None, False, "test_resnet")


def test_input_that_cannot_be_is_refused() -> None:
    shown = SegmenterInput(64, **PLAIN, window=32, window_overlap=8)
    assert SegmenterInput.from_dict(shown.to_dict()) == shown
    with pytest.raises(InputError, match="windows of 32 px can't overlap by 32 px"):
        SegmenterInput(64, **PLAIN, window=32, window_overlap=32)
    with pytest.raises(InputError, match="there are no windows that can't overlap by 8 px"):
        SegmenterInput(64, **PLAIN, window_overlap=8)
    for damaged in ({"sizes": 3}, {**shown.to_dict(), "tile": 3}):
        with pytest.raises(InputError, match="preprocessing: missing or unknown"):
            SegmenterInput.from_dict(damaged)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss": {"dyce": 1}}, r"unknown loss 'dyce' \(did you mean 'dice'\?\)"),
        ({"loss": {}}, "no loss is given"),
        ({"loss": {"dice": -1}}, "the loss 'dice' has the weight -1"),
        ({"monitor": "miou"}, "train.monitor is 'miou'; choose from mIoU"),
    ],
)
def test_settings_of_training_that_cannot_be(scenes: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        config = make_segmentation_config(scenes, Path("unused"), **settings)
        monitored(config, TASK.set_up(config), CPU)
