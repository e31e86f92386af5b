"""A detector's part of a run: batches and their loss."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.detection.dataset import DetectionDataset, collate
from visionlora.data.detection.transforms import DetectionTrainTransform
from visionlora.data.geometry import move_boxes, whole_view
from visionlora.data.loading import Key, batches, epoch_order, make_loader, one_left_over
from visionlora.data.ordering import aspect_ratios, classes_shown, group_by_shape, repeat_factor_order
from visionlora.errors import InputError
from visionlora.models.anchors import fit_anchors
from visionlora.models.detector import Detector
from visionlora.models.timm_detectors import SIZE
from visionlora.tasks.detection.config import AnchorSection, DetectionConfig, DetectionData, DetectorSection
from visionlora.tasks.detection.counting import counted_losses
from visionlora.tasks.detection.inference import DetectorInput
from visionlora.tasks.protocols import Batch, Training

_LEVELS = (3, 4, 5, 6)
"""Of the pyramid over a backbone, unless the config says otherwise."""


class DetectionTraining(Training):
    """See ``tasks.protocols.Training``.

    Args:
        config: data and training settings.
        data: the images to train on.
        detector: that will train.
        shown: how images reach it.
    """

    def __init__(
        self, config: DetectionConfig, data: AnnotatedImages, detector: Detector, shown: DetectorInput
    ) -> None:
        self.detector, self.loss_parts = detector, dict[str, Tensor]()
        self._data, self._train = config.data, config.train
        self._measures_norms = config.train.method == "lora" and config.lora.batchnorm != "frozen"
        transform = DetectionTrainTransform(shown.size, config.data.augment, detector.masks)
        self.train_set = DetectionDataset(shown.samples(data), transform, config.train.seed)

    def train_batches(self, epoch: int) -> list[list[Key]]:
        """The keys of every batch of an epoch, similar shapes together; they follow from seed and epoch alone."""
        seed, samples, threshold = self._train.seed, self.train_set.data, self._data.repeat_threshold
        if threshold:
            order = repeat_factor_order(classes_shown(samples), len(samples.classes), seed, epoch, threshold)
        else:
            order = epoch_order(len(samples), seed, epoch)
        batch_size = self._train.batch_size
        order = group_by_shape(order, aspect_ratios(samples), batch_size, seed, epoch)
        return batches(order, epoch, batch_size, self._measures_norms and one_left_over(len(order), batch_size))

    def train_loader(self, batch_list: list[list[Key]]) -> DataLoader[Any]:
        """Training samples for these batches."""
        return make_loader(self.train_set, batch_list, self._data.workers, collate, leave_out=True)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The sum of the detector's losses for a batch, scalar; it must be in training mode."""
        return self._sum_of(model(batch["image"], self.detector.to_model(batch["target"])))

    def loss_sums(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """See ``counting.counted_losses``."""
        return counted_losses(model, batch["image"], self.detector.to_model(batch["target"]))

    def loss_of(self, sums: Mapping[str, Tensor]) -> Tensor:
        """The sum of the detector's losses for a batch, scalar."""
        return self._sum_of({name: total / count.clamp(min=1) for name, (total, count) in sums.items()})

    def _sum_of(self, losses: dict[str, Tensor]) -> Tensor:
        self.loss_parts = {name: value.detach() for name, value in losses.items()}
        return torch.stack([value.float() for value in losses.values()]).sum()


def fitted(section: DetectorSection, train: AnnotatedImages, data: DetectionData) -> AnchorSection:
    """Anchors for the training boxes, as the model sees them."""
    if section.backbone is None or section.name == "fcos":
        raise InputError(
            f"model.anchors=fit needs retinanet, faster_rcnn or mask_rcnn over a backbone, not {section.name}"
        )
    size = section.size or SIZE
    samples = DetectorInput(size, data.tile, data.tile_overlap).samples(train)
    boxes = [
        torch.from_numpy(
            move_boxes(torch.tensor([thing.box]).double().numpy(), whole_view(image.width, image.height, size))
        )
        for image in samples.images
        for thing in image.objects
        if not thing.crowd
    ]
    anchors = fit_anchors(torch.cat(boxes), section.levels or _LEVELS).anchors
    return AnchorSection(
        sizes=[list(row) for row in anchors.sizes], aspect_ratios=[list(row) for row in anchors.aspect_ratios]
    )
