"""Image classification, single- and multi-label: data, loss and metrics."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from visionlora.data.classification.split import Split, load_split
from visionlora.data.classification.transforms import Preprocessing, eval_transform, train_transform
from visionlora.data.loading import (
    ClassificationDataset,
    Key,
    balanced_order,
    batches,
    epoch_order,
    make_loader,
    one_left_over,
)
from visionlora.errors import InputError
from visionlora.models.classifier import Classifier, create_classifier
from visionlora.tasks.classification.config import ClassificationConfig, ClassificationTrain, ClassifierSection
from visionlora.tasks.classification.figures import confusion_figure, prediction_figure, to_pixels
from visionlora.tasks.classification.metrics import Metrics
from visionlora.tasks.set_up import SetUp, refuse_unknown_monitor, without_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Batch = dict[str, Any]
SCHEMA = ClassificationConfig


class Classification:
    """Everything that the training loop asks of the task.

    Args:
        config: model, data and training settings.
        data: the images to train and validate on.
        preprocessing: the model's.

    Attributes:
        classes: names in the order of the outputs.
        monitor: name of the score that decides which epoch is best; higher is better.
        loss_parts: the last loss's summands by name, where there are several; here it has one.
    """

    def __init__(self, config: ClassificationConfig, data: Split, preprocessing: Preprocessing) -> None:
        self.classes = data.train.classes
        self.multilabel = data.train.multilabel
        self.loss_parts: dict[str, Tensor] = {}
        self.preprocessing = preprocessing
        self._data, self._train = config.data, config.train
        seed = config.train.seed
        self.train_set = ClassificationDataset(
            data.train, train_transform(preprocessing, config.data.augment), seed, train=True
        )
        self.val_set = ClassificationDataset(data.val, eval_transform(preprocessing), seed, train=False)
        self._mix = mixing(config.train, len(self.classes), self.multilabel)
        self.monitor = config.train.monitor or ("mAP" if self.multilabel else "top1")
        refuse_unknown_monitor(self.monitor, Metrics(self.classes, self.multilabel).names)

    def train_batches(self, epoch: int) -> list[list[Key]]:
        """The keys of every batch of an epoch; they follow from seed and epoch alone."""
        seed, images = self._train.seed, self.train_set.data
        if self._data.balanced:
            order = balanced_order(images.labels, len(self.classes), seed, epoch)
        else:
            order = epoch_order(len(images), seed, epoch)
        batch_size = self._train.batch_size
        return batches(order, epoch, batch_size, drop_last=one_left_over(len(order), batch_size))

    def train_loader(self, batch_list: list[list[Key]]) -> DataLoader[Any]:
        """Training samples for these batches."""
        return make_loader(self.train_set, batch_list, self._data.workers)

    def val_loader(self) -> DataLoader[Any]:
        """All validation samples, in order."""
        return loader_over(self.val_set, self._train.batch_size, self._data.workers)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of a batch, scalar. Mixes images first if mixup or cutmix is on (global torch generator)."""
        images, labels = self._mix(batch["image"], batch["target"])
        logits = model(images)
        if self.multilabel:
            return F.binary_cross_entropy_with_logits(logits, labels)
        return F.cross_entropy(logits, labels, label_smoothing=self._train.label_smoothing)

    def example(self, device: torch.device) -> Tensor:
        """What the model takes in eval mode, (1, 3, H, W)."""
        image: Tensor = self.val_set[0, 0]["image"]
        return image[None].to(device)

    def predictor(self, model: nn.Module) -> nn.Module:
        """What gives the outputs that the metrics take: the model."""
        return model

    def metrics(self, device: torch.device) -> Metrics:
        """A fresh accumulator for one evaluation."""
        return Metrics(self.classes, self.multilabel, device)

    def figures(self, model: nn.Module, scores: "Metrics", device: torch.device) -> "dict[str, Figure]":
        """Pictures of an evaluation: some validation images with predictions, and the confusion matrix."""
        figures = {"predictions": self._prediction_figure(model, device)}
        if not self.multilabel and len(self.classes) <= 100:
            figures["confusion_matrix"] = confusion_figure(scores.confusion(), self.classes)
        return figures

    def _prediction_figure(self, model: nn.Module, device: torch.device, count: int = 18) -> "Figure":
        step = max(1, len(self.val_set) // count)
        chosen = [self.val_set[0, index] for index in range(0, len(self.val_set), step)][:count]
        images = torch.stack([sample["image"] for sample in chosen])  # (n, 3, H, W)
        with torch.no_grad():
            predicted = predict_labels(model(images.to(device)), self.classes, self.multilabel, len(self.classes))
        captions, correct = [], []
        for sample, ranked in zip(chosen, predicted, strict=True):
            truth = [self.classes[i] for i in self.val_set.data.labels[sample["index"]]]
            found = [name for name, score in ranked if score >= 0.5] if self.multilabel else [ranked[0][0]]
            right = sorted(found) == sorted(truth)
            captions.append(f"{', '.join(found) or 'none'}" + ("" if right else f"\n(is {', '.join(truth) or 'none'})"))
            correct.append(right)
        return prediction_figure(to_pixels(images, self.preprocessing), captions, correct)

    def describe(self, scores: Metrics) -> dict[str, Any]:
        """What a file must say so that the model can be used without the data."""
        del scores
        return {"multilabel": self.multilabel}


def set_up(config: ClassificationConfig) -> SetUp:
    """Read the images, and build the model for their classes.

    Raises:
        InputError: anything about the images, the model or the task's settings that can't be used.
    """
    data = load_split(config.data, config.train.seed)
    torch.manual_seed(config.train.seed)
    classifier = build(config.model, data.train.classes)
    preprocessing = Preprocessing.from_timm(classifier.data_config)
    task = Classification(config, data, preprocessing)
    images = f"{len(data.train)} images of {len(task.classes)} classes, {len(data.val)} to validate"
    return SetUp(
        model=classifier.model,
        head=classifier.head,
        unused=[],
        task=task,
        settings=config.model.model_dump(mode="json"),
        preprocessing=preprocessing.to_dict(),
        description=f"{config.model.name} on {images}",
        skipped=data.skipped,
    )


def build(model: ClassifierSection, classes: Sequence[str]) -> Classifier:
    """The plain classifier for these classes that a config names."""
    size = (model.img_size, model.img_size) if isinstance(model.img_size, int) else model.img_size
    return create_classifier(
        model.name,
        len(classes),
        pretrained=model.pretrained,
        checkpoint=model.checkpoint,
        img_size=size,
        data_config=model.model_dump(include={"mean", "std", "interpolation", "crop_pct"}),
        drop_rate=model.drop_rate,
        drop_path_rate=model.drop_path_rate,
    )


def without_base(model: ClassifierSection, path: Path) -> ClassifierSection:
    """What to build a model from whose every tensor will be loaded from a file."""
    del path
    return without_weights(model)


def read_preprocessing(values: dict[str, Any]) -> Preprocessing:
    """The inverse of what `set_up` gives as preprocessing."""
    return Preprocessing.from_dict(values)


def loader_over(dataset: ClassificationDataset, batch_size: int, workers: int) -> DataLoader[Any]:
    """All samples of a dataset, in order."""
    return make_loader(dataset, batches(list(range(len(dataset))), 0, batch_size, drop_last=False), workers)


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


def predict_labels(logits: Tensor, classes: list[str], multilabel: bool, top: int) -> list[list[tuple[str, float]]]:
    """The ``top`` classes of each image with their probabilities, best first; logits (N, classes)."""
    scores = logits.float().sigmoid() if multilabel else logits.float().softmax(dim=1)
    best = scores.topk(min(top, len(classes)), dim=1)
    return [
        [(classes[index], value) for value, index in zip(values, indices, strict=True)]
        for values, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
