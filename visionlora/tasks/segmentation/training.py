"""A segmenter's part of a run: batches and their loss."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models.segmentation.deeplabv3 import ASPPPooling

from visionlora.data.loading import Key, batches, epoch_order, make_loader, one_left_over
from visionlora.data.ordering import aspect_ratios, group_by_shape
from visionlora.data.segmentation.dataset import SegmentationDataset, collate
from visionlora.data.segmentation.segmented import SegmentedImages
from visionlora.data.segmentation.transforms import SegmentationTrainTransform
from visionlora.errors import InputError
from visionlora.models.segmenter import Segmenter
from visionlora.tasks.protocols import Batch, Training
from visionlora.tasks.segmentation.config import SegmentationConfig
from visionlora.tasks.segmentation.inference import SegmenterInput
from visionlora.tasks.segmentation.losses import (
    losses_of,
    median_frequency_weights,
    refuse_weights,
    segmentation_sums,
    total_weight,
)


class SegmentationTraining(Training):
    """See ``tasks.protocols.Training``.

    Args:
        config: data and training settings.
        data: the images to train on.
        shown: how images reach the model.

    Raises:
        InputError: settings that can't be used.
    """

    def __init__(self, config: SegmentationConfig, data: SegmentedImages, shown: SegmenterInput) -> None:
        self.loss_parts: dict[str, Tensor] = {}
        self._data, self._train = config.data, config.train
        refuse_weights(config.train.loss)
        crop = (config.data.crop, config.data.crop) if isinstance(config.data.crop, int) else config.data.crop
        transform = SegmentationTrainTransform(shown.size, shown.mean, shown.std, config.data.augment, crop)
        self.train_set = SegmentationDataset(data, transform, config.train.seed)
        self._weights: Tensor | None = None
        if config.train.class_weights == "median_frequency":
            self._weights = median_frequency_weights([image.pixels for image in data.images])

    def train_batches(self, epoch: int) -> list[list[Key]]:
        """The keys of every batch of an epoch, similar shapes together; they follow from seed and epoch alone."""
        seed, images, batch_size = self._train.seed, self.train_set.data, self._train.batch_size
        order = epoch_order(len(images), seed, epoch)
        if self._data.crop is None:
            order = group_by_shape(order, aspect_ratios(images), batch_size, seed, epoch)
        return batches(order, epoch, batch_size, drop_last=one_left_over(len(order), batch_size))

    def train_loader(self, batch_list: list[list[Key]]) -> DataLoader[Any]:
        """Training samples for these batches."""
        return make_loader(self.train_set, batch_list, self._data.workers, collate, leave_out=True)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The weighted sum of the losses of a batch, scalar."""
        return self.loss_of(self.loss_sums(model, batch))

    def loss_sums(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """See ``losses.segmentation_sums``."""
        logits, target = model(batch["image"]), batch["target"]
        weights = None if self._weights is None else self._weights.to(logits.device)
        return segmentation_sums(logits, target, self._train.loss, weights, self._train.focal_gamma)

    def loss_of(self, sums: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the losses of a batch, scalar."""
        losses = losses_of(sums, self._train.loss)
        if len(losses) > 1:
            self.loss_parts = {name: value.detach() for name, value in losses.items()}
        return torch.stack(list(losses.values())).sum()

    def amount(self, batch: Batch) -> float:
        """The labelled pixels' weight. (Dice is a mean over nothing that adds up.)"""
        return float(total_weight(batch["target"], self._weights))


def refuse_single_images(config: SegmentationConfig, segmenter: Segmenter) -> None:
    """DeepLabV3 averages each image to one pixel, of which BatchNorm needs two to train."""
    train = config.train
    trains_norms = not train.freeze_batchnorm if train.method == "full" else config.lora.batchnorm == "train"
    if train.batch_size == 1 and trains_norms and any(isinstance(m, ASPPPooling) for m in segmenter.model.modules()):
        raise InputError(
            f"model {config.model.name} can't train its BatchNorm with train.batch_size=1; give 2, and to spare "
            "memory a smaller model.size or data.crop, or freeze it: train.method=lora lora.batchnorm=frozen"
        )
