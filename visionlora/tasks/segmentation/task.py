"""Semantic segmentation, a class for every pixel: data, loss and metrics."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models.segmentation.deeplabv3 import ASPPPooling

from visionlora.data.geometry import whole_view
from visionlora.data.images import read_image
from visionlora.data.loading import Key, batches, epoch_order, make_loader, one_left_over
from visionlora.data.ordering import aspect_ratios, group_by_shape
from visionlora.data.segmentation.dataset import SegmentationDataset, collate, collate_eval
from visionlora.data.segmentation.object_masks import class_mask
from visionlora.data.segmentation.segmented import SegmentedImages
from visionlora.data.segmentation.split import SegmentedSplit, load_segmented_split
from visionlora.data.segmentation.transforms import SegmentationEvalTransform, SegmentationTrainTransform
from visionlora.errors import InputError
from visionlora.models.segmenter import Segmenter, create_segmenter
from visionlora.tasks.segmentation.config import SegmentationConfig, SegmenterSection
from visionlora.tasks.segmentation.figures import class_colors, confusion_figure, segmentation_figure
from visionlora.tasks.segmentation.inference import SegmenterInput, over_windows, segment
from visionlora.tasks.segmentation.losses import median_frequency_weights, refuse_weights, segmentation_loss
from visionlora.tasks.segmentation.metrics import SegmentationMetrics
from visionlora.tasks.set_up import SetUp, refuse_unknown_monitor, without_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Batch = dict[str, Any]
SCHEMA = SegmentationConfig

_SHOWN = 4
"""Validation images in the picture of each evaluation."""
_MATRIX = 60
"""Up to so many classes the confusion matrix is drawn."""


class Segmentation:
    """Everything that the training loop asks of the task.

    Args:
        config: data and training settings.
        data: the images to train and validate on.
        segmenter: that will train.

    Attributes:
        classes: names in the order of the outputs.
        shown: how images reach the model.
        monitor: name of the score that decides which epoch is best; higher is better.
        loss_parts: the last loss's summands by name, where there are several.

    Raises:
        InputError: settings that can't be used.
    """

    def __init__(self, config: SegmentationConfig, data: SegmentedSplit, segmenter: Segmenter) -> None:
        self.classes = segmenter.classes
        self.loss_parts: dict[str, Tensor] = {}
        self._data, self._train = config.data, config.train
        refuse_weights(config.train.loss)
        mean, std = segmenter.data_config["mean"], segmenter.data_config["std"]
        self.shown = SegmenterInput(config.model.size, mean, std, config.data.window, config.data.window_overlap)
        crop = (config.data.crop, config.data.crop) if isinstance(config.data.crop, int) else config.data.crop
        transform = SegmentationTrainTransform(config.model.size, mean, std, config.data.augment, crop)
        self.train_set = SegmentationDataset(data.train, transform, config.train.seed)
        self.val_set = evaluation_set(data.val, self.shown)
        self._weights: Tensor | None = None
        if config.train.class_weights == "median_frequency":
            self._weights = median_frequency_weights([image.pixels for image in data.train.images])
        self.monitor = config.train.monitor or "mIoU"
        refuse_unknown_monitor(self.monitor, SegmentationMetrics.names)

    def train_batches(self, epoch: int) -> list[list[Key]]:
        """The keys of every batch of an epoch, similar shapes together; they follow from seed and epoch alone."""
        seed, images, batch_size = self._train.seed, self.train_set.data, self._train.batch_size
        order = epoch_order(len(images), seed, epoch)
        if self._data.crop is None:
            order = group_by_shape(order, aspect_ratios(images), batch_size, seed, epoch)
        return batches(order, epoch, batch_size, drop_last=one_left_over(len(order), batch_size))

    def train_loader(self, batch_list: list[list[Key]]) -> DataLoader[Any]:
        """Training samples for these batches."""
        return make_loader(self.train_set, batch_list, self._data.workers, collate)

    def val_loader(self) -> DataLoader[Any]:
        """All validation samples."""
        return evaluation_loader(self.val_set, self._train.batch_size, self._data.workers)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The weighted sum of the losses of a batch, scalar."""
        logits, target = model(batch["image"]), batch["target"]
        weights = None if self._weights is None else self._weights.to(logits.device)
        losses = segmentation_loss(logits, target, self._train.loss, weights, self._train.focal_gamma)
        if len(losses) > 1:
            self.loss_parts = {name: value.detach() for name, value in losses.items()}
        return torch.stack(list(losses.values())).sum()

    def example(self, device: torch.device) -> Tensor:
        """What the model takes in eval mode, (1, 3, H, W)."""
        image: Tensor = self.val_set[0, 0]["image"]
        return image[None].to(device)

    def predictor(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """What gives the outputs that the metrics take: logits of whole images, by windows if the settings say so."""
        return over_windows(model, self.shown)

    def metrics(self, device: torch.device) -> SegmentationMetrics:
        """A fresh accumulator for one evaluation."""
        return SegmentationMetrics(self.classes, device=device)

    def figures(self, model: nn.Module, scores: SegmentationMetrics, device: torch.device) -> "dict[str, Figure]":
        """Pictures of an evaluation: true and found classes over some validation images, and the confusion matrix."""
        data = self.val_set.data
        chosen = range(0, len(data), max(1, len(data) // _SHOWN))[:_SHOWN]
        pictures = [read_image(data.images[index].path) for index in chosen]
        truths = [class_mask(data, index) for index in chosen]
        found = segment(model, pictures, self.shown, device, self._train.batch_size)
        figures = {"masks": segmentation_figure(pictures, truths, found, self.classes, class_colors(data.class_map))}
        if len(self.classes) <= _MATRIX:
            figures["confusion_matrix"] = confusion_figure(scores.confusion(), self.classes)
        return figures

    def describe(self, scores: SegmentationMetrics) -> dict[str, Any]:
        """What a file must say so that the model can be used without the data: how masks show its classes."""
        del scores
        class_map = self.val_set.data.class_map
        return {"colors": [list(color) for color in class_colors(class_map)], "values": class_map.class_values()}


def set_up(config: SegmentationConfig) -> SetUp:
    """Read the masks, and build the segmenter for their classes.

    Raises:
        InputError: anything about the images, the model or the task's settings that can't be used.
    """
    data = load_segmented_split(config.data)
    torch.manual_seed(config.train.seed)
    segmenter = build(config.model, data.train.classes)
    _refuse_single_images(config, segmenter)
    task = Segmentation(config, data, segmenter)
    name = f"{config.model.name} over {config.model.backbone}" if config.model.backbone else config.model.name
    return SetUp(
        model=segmenter.model,
        head=segmenter.head,
        unused=segmenter.unused,
        task=task,
        settings=config.model.model_dump(mode="json"),
        preprocessing=task.shown.to_dict(),
        description=f"{name} on {len(data.train)} images of {len(task.classes)} classes, {len(data.val)} to validate",
        skipped=data.skipped,
        faulty=data.faulty,
    )


def build(model: SegmenterSection, classes: Sequence[str]) -> Segmenter:
    """The plain segmenter for these classes that a config names."""
    return create_segmenter(
        model.name,
        classes,
        backbone=model.backbone,
        pretrained=model.pretrained,
        checkpoint=model.checkpoint,
        data_config=model.model_dump(include={"mean", "std"}),
        channels=model.channels,
    )


def without_base(model: SegmenterSection, path: Path) -> SegmenterSection:
    """What to build a model from whose every tensor will be loaded from a file."""
    del path
    return without_weights(model)


def read_preprocessing(values: dict[str, Any]) -> SegmenterInput:
    """The inverse of what `set_up` gives as preprocessing."""
    return SegmenterInput.from_dict(values)


def evaluation_set(data: SegmentedImages, shown: SegmenterInput) -> SegmentationDataset:
    """The samples that a segmenter is evaluated on; their targets have the sizes of the files."""
    return SegmentationDataset(data, SegmentationEvalTransform(shown.size, shown.mean, shown.std), seed=0)


def evaluation_loader(dataset: SegmentationDataset, batch_size: int, workers: int) -> DataLoader[Any]:
    """All samples of a dataset, in batches of one shape: what is beside an image would be seen by the model."""
    by_shape: dict[tuple[int, int], list[int]] = {}
    for index, image in enumerate(dataset.data.images):
        view = whole_view(image.width, image.height, dataset.transform.size)
        by_shape.setdefault((view.width, view.height), []).append(index)
    keys = [batch for group in by_shape.values() for batch in batches(group, 0, batch_size, drop_last=False)]
    return make_loader(dataset, keys, workers, collate_eval)


def _refuse_single_images(config: SegmentationConfig, segmenter: Segmenter) -> None:
    """DeepLabV3 averages each image to one pixel, of which BatchNorm needs two to train."""
    train, trains_norms = config.train, config.lora.batchnorm == "train" or config.train.method == "full"
    if train.batch_size == 1 and trains_norms and any(isinstance(m, ASPPPooling) for m in segmenter.model.modules()):
        raise InputError(
            f"model {config.model.name} can't train its BatchNorm with train.batch_size=1; give 2, and to spare "
            "memory a smaller model.size or data.crop, or freeze it: train.method=lora lora.batchnorm=frozen"
        )
