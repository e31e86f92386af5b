"""Samples for classification."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from visionlora.data.classification.labelled import LabelledImages
from visionlora.data.images import read_image
from visionlora.data.loading import Key, sample_seed


class ClassificationDataset(Dataset[dict[str, Any]]):
    """Images with labels, by key (epoch, index).

    A sample is ``image`` (3, H, W) float32; ``target``, an int64 scalar or, if multilabel, (classes,) float32 of 0
    and 1; and ``index``. With ``train``, ``transform`` is called with (image, seed of this key), else with (image).
    """

    def __init__(self, data: LabelledImages, transform: Callable[..., torch.Tensor], seed: int, train: bool) -> None:
        self.data = data
        self.transform = transform
        self.seed = seed
        self.train = train

    def __len__(self) -> int:
        return len(self.data)

    def path_of(self, index: int) -> Path:
        """The file of an image."""
        return self.data.paths[index]

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Raises InputError, naming the file, if the image can't be read."""
        epoch, index = key
        image = read_image(self.data.paths[index])
        tensor = self.transform(image, sample_seed(self.seed, epoch, index)) if self.train else self.transform(image)
        return {"image": tensor, "target": self.target(index), "index": index}

    def target(self, index: int) -> torch.Tensor:
        """An int64 scalar or, if multilabel, (classes,) float32 of 0 and 1."""
        label = self.data.labels[index]
        if not self.data.multilabel:
            return torch.tensor(label[0], dtype=torch.int64)
        hot = torch.zeros(len(self.data.classes), dtype=torch.float32)
        hot[list(label)] = 1
        return hot
