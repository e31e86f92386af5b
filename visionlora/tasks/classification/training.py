"""A classifier's part of a run: batches and their loss."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from visionlora.data.classification.samples import ClassificationDataset
from visionlora.data.classification.split import Split
from visionlora.data.classification.transforms import Preprocessing, train_transform
from visionlora.data.loading import Key, balanced_order, batches, epoch_order, make_loader, one_left_over
from visionlora.errors import InputError
from visionlora.tasks.classification.config import ClassificationConfig, ClassificationTrain
from visionlora.tasks.classification.distilling import Teacher
from visionlora.tasks.protocols import Batch, Training


class ClassificationTraining(Training):
    """See ``tasks.protocols.Training``.

    Args:
        config: model, data and training settings.
        data: the images to train and validate on.
        preprocessing: the model's.
        teacher: says what the logits of the base's classes should be, if anyone does.
    """

    def __init__(
        self, config: ClassificationConfig, data: Split, preprocessing: Preprocessing, teacher: Teacher | None = None
    ) -> None:
        self.loss_parts: dict[str, Tensor] = {}
        self._teacher = teacher
        self._data, self._train = config.data, config.train
        self._multilabel, self._classes = data.train.multilabel, len(data.train.classes)
        transform = train_transform(preprocessing, config.data.augment)
        self.train_set = ClassificationDataset(data.train, transform, config.train.seed, train=True)
        self._mix = mixing(config.train, self._classes, self._multilabel)

    def train_batches(self, epoch: int) -> list[list[Key]]:
        """The keys of every batch of an epoch; they follow from seed and epoch alone."""
        seed, images = self._train.seed, self.train_set.data
        if self._data.balanced:
            order = balanced_order(images.labels, self._classes, seed, epoch)
        else:
            order = epoch_order(len(images), seed, epoch)
        batch_size = self._train.batch_size
        return batches(order, epoch, batch_size, drop_last=one_left_over(len(order), batch_size))

    def train_loader(self, batch_list: list[list[Key]]) -> DataLoader[Any]:
        """Training samples for these batches."""
        return make_loader(self.train_set, batch_list, self._data.workers, leave_out=True)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of a batch, scalar. Mixes images first if mixup or cutmix is on (global torch generator)."""
        images, labels = self._mix(batch["image"], batch["target"])
        logits = model(images)
        if self._multilabel:
            return F.binary_cross_entropy_with_logits(logits, labels)
        loss = F.cross_entropy(logits, labels, label_smoothing=self._train.label_smoothing)
        if self._teacher is None:
            return loss
        parts = {"labels": loss, "base": self._teacher.loss(images, logits)}
        self.loss_parts = {name: part.detach() for name, part in parts.items()}
        return parts["labels"] + parts["base"]


def mixing(
    train: ClassificationTrain, num_classes: int, multilabel: bool
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Mixup and cutmix (torchvision), one of them at random per batch if both are on."""
    from torchvision.transforms import v2

    if multilabel and (train.mixup or train.cutmix or train.label_smoothing):
        raise InputError("train.mixup, train.cutmix and train.label_smoothing need one label per image")
    choices: list[Any] = []
    if train.mixup:
        choices.append(v2.MixUp(alpha=train.mixup, num_classes=num_classes))
    if train.cutmix:
        choices.append(v2.CutMix(alpha=train.cutmix, num_classes=num_classes))
    if not choices:
        return lambda images, labels: (images, labels)
    chosen: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = v2.RandomChoice(choices)
    return chosen
