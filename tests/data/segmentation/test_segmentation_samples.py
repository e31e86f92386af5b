"""Samples for segmentation: mask and pixels move together, the same everywhere, different in every epoch."""

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.coloured import COLOURS, FILL, GROUND, draw
from helpers.mask_sets import CLASSES, save, write_set
from visionlora.data.augmentations import STRENGTHS
from visionlora.data.geometry import Moves, random_view, show, whole_view
from visionlora.data.loading import batches, make_loader
from visionlora.data.segmentation.class_map import IGNORE, make_class_map
from visionlora.data.segmentation.dataset import SegmentationDataset, collate, collate_eval
from visionlora.data.segmentation.mask_reading import read_masks
from visionlora.data.segmentation.segmented import SegmentedImages
from visionlora.data.segmentation.transforms import SegmentationEvalTransform, SegmentationTrainTransform, show_mask
from visionlora.errors import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PALETTE = np.array([*COLOURS, GROUND], np.uint8)
RANDOM_STRENGTHS = [strength for strength in STRENGTHS if strength != "none"]


def picture(seed: int, width: int = 300, height: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Ellipses on a ground, (H, W, 3), and which one each pixel is of, (H, W); 6 is the ground."""
    image = draw(np.random.default_rng(seed), width, height, "ellipse").image
    mask = (image[:, :, None].astype(int) == PALETTE).all(axis=3).argmax(axis=2).astype(np.uint8)
    assert np.array_equal(PALETTE[mask], image)
    return image, mask


def pixels_of(tensor: torch.Tensor) -> np.ndarray:
    """Back from (3, H, W) normalised to (H, W, 3) uint8."""
    plain = tensor.permute(1, 2, 0).numpy() * np.array(STD) + np.array(MEAN)
    return (plain * 255).round().astype(np.uint8)


def agreement(image: np.ndarray, mask: np.ndarray) -> float:
    """Share of the pixels of a single colour whose class, or filling, is that of the mask."""
    palette = np.array([*PALETTE.tolist(), FILL])
    classes = np.array([*range(7), IGNORE])
    distance = np.abs(image[:, :, None].astype(int) - palette).max(axis=3)
    pure = distance.min(axis=2) <= 1
    assert pure.mean() > 0.6
    return float((classes[distance.argmin(axis=2)] == mask)[pure].mean())


@pytest.fixture
def data(tmp_path: Path) -> SegmentedImages:
    """Landscape and portrait."""
    for i in range(6):
        image, mask = picture(i, *((240, 160) if i % 2 else (150, 260)))
        save(tmp_path / "images" / f"{i}.png", image)
        save(tmp_path / "masks" / f"{i}.png", mask)
    return read_masks(tmp_path / "images", tmp_path / "masks", make_class_map([*"abcdefg"]))


@pytest.mark.parametrize("moves", [Moves((0.5, 2.0)), Moves((0.5, 2.0), tilt=8, shear=5)], ids=["upright", "tilted"])
@pytest.mark.parametrize("window", [None, (160, 128), (400, 96)])
def test_the_mask_lies_on_its_pixels(moves: Moves, window: tuple[int, int] | None) -> None:
    image, mask = picture(1)
    for seed in range(15):
        generator = np.random.default_rng(seed)
        view = random_view(300, 200, 240, np.zeros((0, 4)), moves, generator, window)
        assert (view.width, view.height) == (window or (240, 160))
        shown, moved = show(image, view), show_mask(mask, view)
        assert shown.shape[:2] == moved.shape
        assert (moved != IGNORE).any()
        assert agreement(shown, moved) > 0.995


@pytest.mark.parametrize("moves", [Moves((0.5, 2.0)), Moves((0.5, 2.0), tilt=8, shear=5)], ids=["upright", "tilted"])
def test_a_moved_mask_has_the_pixel_below_each_centre(moves: Moves) -> None:
    """OpenCV rounds coordinates to fractions of a pixel, so a few centres near an edge fall beside it."""
    mask = np.random.default_rng(0).integers(0, 200, (40, 60), dtype=np.uint8)
    for seed in range(15):
        view = random_view(60, 40, 240, np.zeros((0, 4)), moves, np.random.default_rng(seed))
        y, x = np.mgrid[: view.height, : view.width].reshape(2, -1) + 0.5
        back = np.linalg.inv(np.vstack((view.matrix, (0, 0, 1)))) @ np.stack((x, y, np.ones_like(x)))
        columns, rows = np.floor(back[:2]).astype(int)
        inside = (columns >= 0) & (columns < 60) & (rows >= 0) & (rows < 40)
        expected = np.where(inside, mask[rows.clip(0, 39), columns.clip(0, 59)], IGNORE)
        assert (show_mask(mask, view).ravel() == expected).mean() > 0.97


def test_an_unmoved_mask_stays_as_it_is_and_a_mirrored_one_is_mirrored() -> None:
    _, mask = picture(2)
    assert np.array_equal(show_mask(mask, whole_view(300, 200, 300)), mask)
    views = [random_view(300, 200, 300, np.zeros((0, 4)), Moves((1, 1)), np.random.default_rng(i)) for i in range(20)]
    shown = [show_mask(mask, view) for view in views]
    mirrored = [np.array_equal(one, mask[:, ::-1]) for one in shown]
    assert {True, False} == set(mirrored)
    assert all(flipped or np.array_equal(one, mask) for flipped, one in zip(mirrored, shown, strict=True))


def test_a_view_is_as_large_as_the_window_and_shows_all_places() -> None:
    """Inside the image, and nearly every pixel is in some window; corners are in few."""
    seen = np.zeros((200, 300), bool)
    for seed in range(150):
        generator = np.random.default_rng(seed)
        view = random_view(300, 200, 300, np.zeros((0, 4)), Moves((1, 1), mirror=False), generator, (100, 80))
        x, y = (-view.matrix[:, 2]).tolist()
        assert -1e-6 <= x <= 200 + 1e-6
        assert -1e-6 <= y <= 120 + 1e-6
        seen[round(y) : round(y) + 80, round(x) : round(x) + 100] = True
    assert seen.mean() > 0.9


def test_a_training_sample(data: SegmentedImages) -> None:
    dataset = SegmentationDataset(data, SegmentationTrainTransform(120, MEAN, STD, "light"), seed=0)
    sample = dataset[(0, 1)]
    assert (sample["image"].shape, sample["image"].dtype) == ((3, 80, 120), torch.float32)
    assert (sample["target"].shape, sample["target"].dtype) == ((80, 120), torch.int64)
    assert set(sample["target"].unique().tolist()) <= {*range(7), IGNORE}
    assert (sample["index"], sample["original_size"].tolist()) == (1, [160, 240])


def test_without_augmentation_the_whole_image_is_shown(data: SegmentedImages) -> None:
    train = SegmentationDataset(data, SegmentationTrainTransform(240, MEAN, STD, "none"), seed=0)
    val = SegmentationDataset(data, SegmentationEvalTransform(240, MEAN, STD), seed=0)
    assert torch.equal(train[(3, 1)]["image"], val[(0, 1)]["image"])
    assert torch.equal(train[(3, 1)]["target"], val[(0, 1)]["target"])
    assert agreement(pixels_of(val[(0, 1)]["image"]), val[(0, 1)]["target"].numpy()) == 1


def test_in_evaluation_the_mask_keeps_its_size(data: SegmentedImages) -> None:
    sample = SegmentationDataset(data, SegmentationEvalTransform(64, MEAN, STD), seed=0)[(0, 0)]
    assert sample["image"].shape == (3, 64, 37)
    assert sample["target"].shape == (260, 150)
    assert sample["target"].dtype == torch.int64
    assert np.array_equal(sample["target"].numpy(), picture(0, 150, 260)[1])
    whole = SegmentationDataset(data, SegmentationEvalTransform(260, MEAN, STD), seed=0)[(0, 0)]
    assert np.array_equal(pixels_of(whole["image"]), picture(0, 150, 260)[0])


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_crop_has_its_size_whatever_the_image_has(data: SegmentedImages, strength: str) -> None:
    transform = SegmentationTrainTransform(200, MEAN, STD, strength, crop=(96, 128))
    dataset = SegmentationDataset(data, transform, seed=0)
    for index in range(len(dataset)):
        sample = dataset[(0, index)]
        assert sample["image"].shape == (3, 96, 128)
        assert sample["target"].shape == (96, 128)
        assert (sample["target"] != IGNORE).float().mean() > 0.1


@pytest.mark.parametrize("strength", RANDOM_STRENGTHS)
def test_a_sample_follows_from_image_mask_and_seed(strength: str) -> None:
    transform = SegmentationTrainTransform(160, MEAN, STD, strength)
    image, mask = picture(0)
    before = image.copy(), mask.copy()
    first = [transform(image, mask, seed) for seed in range(6)]
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    copy = pickle.loads(pickle.dumps(transform))
    again = [copy(image, mask, seed) for seed in reversed(range(6))][::-1]
    for (tensor, target), (other, other_target) in zip(first, again, strict=True):
        assert torch.equal(tensor, other)
        assert torch.equal(target, other_target)
    assert len({target.numpy().tobytes() for _, target in first}) == 6
    assert np.array_equal(image, before[0])
    assert np.array_equal(mask, before[1])


def test_workers_give_the_same_samples_and_epochs_differ(data: SegmentedImages) -> None:
    dataset = SegmentationDataset(data, SegmentationTrainTransform(96, MEAN, STD, "strong"), seed=3)
    keys = batches([5, 0, 3, 1], epoch=2, batch_size=2, drop_last=False)
    here, there = (list(make_loader(dataset, keys, workers, collate)) for workers in (0, 1))
    for one, other in zip(here, there, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(dataset[(2, 5)]["target"], dataset[(3, 5)]["target"])


def test_a_batch_of_several_sizes_is_filled_up(data: SegmentedImages) -> None:
    dataset = SegmentationDataset(data, SegmentationTrainTransform(100, MEAN, STD, "none"), seed=0)
    samples = [dataset[(0, 0)], dataset[(0, 1)]]
    batch = collate(samples)
    assert batch["image"].shape == (2, 3, 100, 100)
    assert batch["target"].shape == (2, 100, 100)
    assert batch["size"].tolist() == [[100, 58], [67, 100]]
    assert batch["original_size"].tolist() == [[260, 150], [160, 240]]
    assert batch["index"].tolist() == [0, 1]
    for i, sample in enumerate(samples):
        height, width = batch["size"][i].tolist()
        assert torch.equal(batch["image"][i, :, :height, :width], sample["image"])
        assert torch.equal(batch["target"][i, :height, :width], sample["target"])
        outside = torch.ones(100, 100, dtype=torch.bool)
        outside[:height, :width] = False
        assert (batch["image"][i][:, outside] == 0).all()
        assert (batch["target"][i][outside] == IGNORE).all()


def test_an_evaluation_batch_keeps_each_mask(data: SegmentedImages) -> None:
    dataset = SegmentationDataset(data, SegmentationEvalTransform(100, MEAN, STD), seed=0)
    batch = collate_eval([dataset[(0, 0)], dataset[(0, 1)]])
    assert batch["image"].shape == (2, 3, 100, 100)
    assert [tuple(target.shape) for target in batch["target"]] == [(260, 150), (160, 240)]


def test_sizes_and_words_that_can_not_be_meant() -> None:
    with pytest.raises(InputError, match="longest side is to be 1 px"):
        SegmentationEvalTransform(1, MEAN, STD)
    with pytest.raises(InputError, match="longest side is to be 0 px"):
        SegmentationTrainTransform(0, MEAN, STD)
    with pytest.raises(InputError, match="crop is to be 1 px"):
        SegmentationTrainTransform(64, MEAN, STD, crop=(64, 1))
    with pytest.raises(InputError, match="unknown augmentation strength 'lite'"):
        SegmentationTrainTransform(64, MEAN, STD, "lite")


def test_an_image_that_was_changed_after_reading_is_refused(tmp_path: Path) -> None:
    images, masks = write_set(tmp_path)
    dataset = SegmentationDataset(read_masks(images, masks, CLASSES), SegmentationEvalTransform(8, MEAN, STD), seed=0)
    save(images / "1.jpg", np.zeros((6, 6, 3), np.uint8))
    with pytest.raises(InputError, match="1.jpg: has 6 x 6 pixels, but its mask was made for 12 x 8"):
        dataset[(0, 1)]
