"""Samples for semantic segmentation."""

from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad
from torch.utils.data import Dataset

from visionlora.data.images import read_image
from visionlora.data.loading import Key, sample_seed
from visionlora.data.segmentation.class_map import IGNORE
from visionlora.data.segmentation.object_masks import class_mask
from visionlora.data.segmentation.segmented import SegmentedImages
from visionlora.data.segmentation.transforms import SegmentationEvalTransform, SegmentationTrainTransform
from visionlora.errors import InputError


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Images with a class for every pixel, by key (epoch, index).

    A sample is:

    - ``image``: (3, h, w) float32, normalised;
    - ``target``: int64 of classes and ``IGNORE``: (h, w) to train on, of the image file's own size in evaluation;
    - ``index``: of the image;
    - ``original_size``: (2,) int64, height and width of the image file, EXIF applied.

    Args:
        data: the images.
        transform: with a ``SegmentationTrainTransform`` a sample depends on ``seed`` and its key.
        seed: >= 0, of the run.
    """

    def __init__(
        self, data: SegmentedImages, transform: SegmentationTrainTransform | SegmentationEvalTransform, seed: int
    ) -> None:
        self.data = data
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.data)

    def path_of(self, index: int) -> Path:
        """The file of an image."""
        return self.data.images[index].path

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Raises InputError, naming the file, if image or mask can't be read or has changed its size."""
        epoch, index = key
        image = self.data.images[index]
        pixels = read_image(image.path)
        height, width = pixels.shape[:2]
        if (width, height) != (image.width, image.height):
            raise InputError(
                f"{image.path}: has {width} x {height} pixels, but its mask was made for {image.width} x "
                f"{image.height}; restore the old file"
            )
        mask = class_mask(self.data, index)
        if isinstance(self.transform, SegmentationTrainTransform):
            tensor, target = self.transform(pixels, mask, sample_seed(self.seed, epoch, index))
        else:
            tensor, target = self.transform(pixels, mask)
        return {"image": tensor, "target": target, "index": index, "original_size": torch.tensor((height, width))}


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch to train on: all stacked, ``image`` (N, 3, H, W) and ``target`` (N, H, W), and ``size`` (N, 2).

    Images of several sizes are filled up at the right and at the bottom, with 0, which is the mean colour, and
    ``IGNORE``; ``size`` is each one's height and width before that.
    """
    batch = _stacked(samples)
    height, width = batch["image"].shape[2:]
    targets = [sample["target"] for sample in samples]
    batch["target"] = torch.stack([_filled(target, height, width, IGNORE) for target in targets])
    return batch


def collate_eval(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """As ``collate``, but ``target`` is a list, each of its image file's own size."""
    return {**_stacked(samples), "target": [sample["target"] for sample in samples]}


def _stacked(samples: list[dict[str, Any]]) -> dict[str, Any]:
    images = [sample["image"] for sample in samples]
    sizes = torch.tensor([image.shape[1:] for image in images])  # (N, 2)
    height, width = sizes.amax(dim=0).tolist()
    return {
        "image": torch.stack([_filled(image, height, width, 0) for image in images]),
        "index": torch.tensor([sample["index"] for sample in samples]),
        "size": sizes,
        "original_size": torch.stack([sample["original_size"] for sample in samples]),
    }


def _filled(tensor: torch.Tensor, height: int, width: int, value: int) -> torch.Tensor:
    """(..., h, w) -> (..., height, width)."""
    return pad(tensor, (0, width - tensor.shape[-1], 0, height - tensor.shape[-2]), value=value)
