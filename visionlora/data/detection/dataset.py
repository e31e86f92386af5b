"""Samples for detection and instance segmentation."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from visionlora.data.annotations.annotated import AnnotatedImage, AnnotatedImages
from visionlora.data.annotations.masks import refuse_missing_masks
from visionlora.data.detection.tiling import Tile
from visionlora.data.detection.transforms import DetectionEvalTransform, DetectionTrainTransform
from visionlora.data.images import read_image
from visionlora.data.loading import Key, sample_seed
from visionlora.errors import InputError


class DetectionDataset(Dataset[dict[str, Any]]):
    """Images or tiles with their objects, by key (epoch, index).

    A sample is:

    - ``image``: (3, H, W) float32 in 0 to 1, not normalised;
    - ``target``: ``targets.Target``, with ``image_id``: the index of the image, of a tile the one it was cut from;
    - ``index``: of the sample;
    - ``window``: (4,) int64, x1 y1 x2 y2 of what is shown of the image file: all of it, or a tile;
    - ``original_size``: (2,) int64, height and width of the image file, EXIF applied.

    ``window`` and the image's size lead back to the file (``mapping``), except after a random view.

    Args:
        data: the images, or their tiles (``tiling.cut``).
        transform: with a ``DetectionTrainTransform`` a sample depends on ``seed`` and its key.
        seed: >= 0, of the run.

    Raises:
        InputError: the transform makes masks and an object has none.
    """

    def __init__(
        self, data: AnnotatedImages, transform: DetectionTrainTransform | DetectionEvalTransform, seed: int
    ) -> None:
        if transform.masks:
            refuse_missing_masks(data)
        self.data = data
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.data)

    def path_of(self, index: int) -> Path:
        """The file of an image."""
        return self.data.images[index].path

    def image_of(self, index: int) -> int:
        """The index of the image that a sample shows: of a tile, the one that it was cut from."""
        image = self.data.images[index]
        return image.image_id if isinstance(image, Tile) else index

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Raises InputError, naming the file, if it can't be read or isn't of the size that is annotated."""
        epoch, index = key
        image = self.data.images[index]
        pixels, window, original_size, image_id = _read(image, index)
        if isinstance(self.transform, DetectionTrainTransform):
            seed = sample_seed(self.seed, epoch, index)
            tensor, target = self.transform(pixels, image.objects, seed)
        else:
            tensor, target = self.transform(pixels, image.objects)
        return {
            "image": tensor,
            "target": {**target, "image_id": image_id},
            "index": index,
            "window": torch.tensor(window),
            "original_size": torch.tensor(original_size),
        }


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch: ``image`` and ``target`` are lists, as torchvision's detectors take them; the others are stacked."""
    return {
        "image": [sample["image"] for sample in samples],
        "target": [sample["target"] for sample in samples],
        "index": torch.tensor([sample["index"] for sample in samples]),
        "window": torch.stack([sample["window"] for sample in samples]),  # (N, 4)
        "original_size": torch.stack([sample["original_size"] for sample in samples]),  # (N, 2)
    }


def _read(image: AnnotatedImage, index: int) -> tuple[np.ndarray, tuple[int, ...], tuple[int, int], int]:
    """Pixels (H, W, 3), window, height and width of the file, index of the image."""
    pixels = read_image(image.path)
    height, width = pixels.shape[:2]
    tile = image if isinstance(image, Tile) else None
    expected = tile.original_size if tile else (image.height, image.width)
    if (height, width) != expected:
        raise InputError(
            f"{image.path}: has {width} x {height} pixels, but was annotated with {expected[1]} x {expected[0]}; "
            "annotate it again or restore the old file"
        )
    if tile is None:
        return pixels, (0, 0, width, height), expected, index
    x1, y1, x2, y2 = tile.window
    return np.ascontiguousarray(pixels[y1:y2, x1:x2]), tile.window, expected, tile.image_id
