"""Object detection, with masks where the data and the model have them: data, loss and metrics."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from visionlora.data.annotations.annotated import AnnotatedImages
from visionlora.data.annotations.split import AnnotatedSplit, load_annotated_split
from visionlora.data.detection.dataset import DetectionDataset, collate
from visionlora.data.detection.targets import make_target
from visionlora.data.detection.tiling import cut
from visionlora.data.detection.transforms import DetectionEvalTransform, DetectionTrainTransform
from visionlora.data.geometry import move_boxes, whole_view
from visionlora.data.images import read_image
from visionlora.data.loading import Key, batches, epoch_order, make_loader, one_left_over
from visionlora.data.ordering import aspect_ratios, classes_shown, group_by_shape, repeat_factor_order
from visionlora.errors import InputError
from visionlora.models.anchors import Anchors, fit_anchors
from visionlora.models.detector import Detector, create_detector
from visionlora.tasks.detection.config import AnchorSection, DetectionConfig, DetectionData, DetectorSection
from visionlora.tasks.detection.evaluation import DetectionEvaluation
from visionlora.tasks.detection.figures import curves_figure, detection_figure
from visionlora.tasks.detection.inference import DetectorInput, detect
from visionlora.tasks.set_up import SetUp, refuse_unknown_monitor, without_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Batch = dict[str, Any]
SCHEMA = DetectionConfig

_SHOWN = 6
"""Validation images in the picture of each evaluation."""
_LEVELS = (3, 4, 5, 6)
"""Of the pyramid over a backbone, unless the config says otherwise."""


class Detection:
    """Everything that the training loop asks of the task.

    Args:
        config: data and training settings.
        data: the images to train and validate on.
        detector: that will train.

    Attributes:
        classes: names in the order of the labels.
        shown: how images reach the model.
        monitor: name of the score that decides which epoch is best; higher is better.
        loss_parts: the last loss's summands by name.
    """

    def __init__(self, config: DetectionConfig, data: AnnotatedSplit, detector: Detector) -> None:
        self.detector, self.classes = detector, detector.classes
        self.loss_parts: dict[str, Tensor] = {}
        self._val, self._data, self._train = data.val, config.data, config.train
        self._measures_norms = config.train.method == "lora" and config.lora.batchnorm != "frozen"
        self.shown = DetectorInput(detector.data_config["size"], config.data.tile, config.data.tile_overlap)
        transform = DetectionTrainTransform(self.shown.size, config.data.augment, detector.masks)
        self.train_set = DetectionDataset(_samples(data.train, self.shown), transform, config.train.seed)
        self.val_set = evaluation_set(data.val, self.shown)
        self.monitor = config.train.monitor or ("segm_mAP" if detector.masks else "mAP")
        refuse_unknown_monitor(self.monitor, DetectionEvaluation(detector, data.val).names)

    def train_batches(self, epoch: int) -> list[list[Key]]:
        """The keys of every batch of an epoch, similar shapes together; they follow from seed and epoch alone."""
        seed, samples, threshold = self._train.seed, self.train_set.data, self._data.repeat_threshold
        if threshold:
            order = repeat_factor_order(classes_shown(samples), len(self.classes), seed, epoch, threshold)
        else:
            order = epoch_order(len(samples), seed, epoch)
        batch_size = self._train.batch_size
        order = group_by_shape(order, aspect_ratios(samples), batch_size, seed, epoch)
        return batches(order, epoch, batch_size, self._measures_norms and one_left_over(len(order), batch_size))

    def train_loader(self, batch_list: list[list[Key]]) -> DataLoader[Any]:
        """Training samples for these batches."""
        return make_loader(self.train_set, batch_list, self._data.workers, collate)

    def val_loader(self) -> DataLoader[Any]:
        """All validation samples, in order."""
        return evaluation_loader(self.val_set, self._train.batch_size, self._data.workers)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The sum of the detector's losses for a batch, scalar; it must be in training mode."""
        losses: dict[str, Tensor] = model(batch["image"], self.detector.to_model(batch["target"]))
        self.loss_parts = {name: value.detach() for name, value in losses.items()}
        return torch.stack([value.float() for value in losses.values()]).sum()

    def example(self, device: torch.device) -> list[Tensor]:
        """What the model takes in eval mode: a list of one image (3, H, W)."""
        image: Tensor = self.val_set[0, 0]["image"]
        return [image.to(device)]

    def predictor(self, model: nn.Module) -> nn.Module:
        """What gives the outputs that the metrics take: the model."""
        return model

    def metrics(self, device: torch.device) -> DetectionEvaluation:
        """A fresh accumulator for one evaluation; it works on the CPU."""
        del device
        return DetectionEvaluation(self.detector, self._val)

    def figures(self, model: nn.Module, scores: DetectionEvaluation, device: torch.device) -> "dict[str, Figure]":
        """Pictures of an evaluation: some validation images with true and found boxes, and the curves."""
        figures = {"detections": self._detection_figure(model, device)}
        for name, masks in {"boxes": False, "masks": True}.items():
            if masks <= self.detector.masks and (curves := scores.curves(masks)):
                figures[f"precision_recall_{name}"] = curves_figure(curves, self.classes)
        return figures

    def _detection_figure(self, model: nn.Module, device: torch.device) -> "Figure":
        with_objects = [image for image in self._val.images if image.objects] or self._val.images
        chosen = with_objects[:: max(1, len(with_objects) // _SHOWN)][:_SHOWN]
        pictures = [read_image(image.path) for image in chosen]
        truths = [
            make_target(
                image.objects, whole_view(image.width, image.height, max(image.width, image.height)), False, False
            )
            for image in chosen
        ]
        found = detect(replace(self.detector, model=model), pictures, self.shown, device)
        return detection_figure(pictures, truths, found, self.classes)

    def describe(self, scores: DetectionEvaluation) -> dict[str, Any]:
        """What a file must say so that the model can be used without the data: score thresholds with the best F1."""
        return {"thresholds": scores.thresholds()}


def set_up(config: DetectionConfig) -> SetUp:
    """Read the annotations, and build the detector for their classes.

    Raises:
        InputError: anything about the images, the model or the task's settings that can't be used.
    """
    data = load_annotated_split(config.data)
    section = config.model
    if section.anchors == "fit":
        section = section.model_copy(update={"anchors": _fitted(section, data.train, config.data)})
    torch.manual_seed(config.train.seed)
    detector = build(section, data.train.classes)
    task = Detection(config, data, detector)
    name = f"{section.name} over {section.backbone}" if section.backbone else section.name
    objects = f"{sum(data.train.counts())} objects of {len(task.classes)} class{'es' * (len(task.classes) > 1)}"
    tiles = f" ({len(task.train_set)} tiles)" if config.data.tile else ""
    return SetUp(
        model=detector.model,
        head=detector.head,
        unused=detector.unused,
        task=task,
        settings=section.model_dump(mode="json"),
        preprocessing=task.shown.to_dict(),
        description=f"{name} on {len(data.train)} images{tiles} with {objects}, {len(data.val)} to validate",
        skipped=data.skipped,
        faulty=data.faulty,
        keep_statistics=True,  # a detector's batches are too small to measure them, as torchvision's own have it
    )


def build(model: DetectorSection, classes: Sequence[str]) -> Detector:
    """The plain detector for these classes that a config names; anchors are no longer to be fitted."""
    anchors = None
    if isinstance(model.anchors, AnchorSection):
        sizes, ratios = (tuple(map(tuple, values)) for values in (model.anchors.sizes, model.anchors.aspect_ratios))
        anchors = Anchors(sizes, ratios)
    return create_detector(
        model.name,
        classes,
        backbone=model.backbone,
        pretrained=model.pretrained,
        checkpoint=model.checkpoint,
        size=model.size,
        data_config=model.model_dump(include={"mean", "std"}),
        levels=model.levels,
        fpn_channels=model.fpn_channels,
        head_convs=model.head_convs,
        anchors=anchors,
    )


def without_base(model: DetectorSection, path: Path) -> DetectorSection:
    """What to build a model from whose every tensor will be loaded from a file."""
    if model.backbone is None and (model.pretrained or model.checkpoint):
        # torchvision's pretrained detectors are built otherwise than its fresh ones: outputs, BatchNorm's eps.
        return model.model_copy(update={"checkpoint": path})
    return without_weights(model)


def read_preprocessing(values: dict[str, Any]) -> DetectorInput:
    """The inverse of what `set_up` gives as preprocessing."""
    return DetectorInput.from_dict(values)


def evaluation_set(data: AnnotatedImages, shown: DetectorInput) -> DetectionDataset:
    """The samples that a detector is evaluated on; `DetectionEvaluation` looks up the truth itself."""
    return DetectionDataset(_samples(data, shown), DetectionEvalTransform(shown.size), seed=0)


def evaluation_loader(dataset: DetectionDataset, batch_size: int, workers: int) -> DataLoader[Any]:
    """All samples of a dataset, in order."""
    keys = batches(list(range(len(dataset))), 0, batch_size, drop_last=False)
    return make_loader(dataset, keys, workers, _collate_places)


def _collate_places(samples: list[dict[str, Any]]) -> Batch:
    """A batch whose ``target`` says what of which image each sample shows, as `DetectionEvaluation.update` asks."""
    places = [
        {
            "image_id": sample["target"]["image_id"],
            "window": tuple(sample["window"].tolist()),
            "size": (sample["image"].shape[2], sample["image"].shape[1]),
        }
        for sample in samples
    ]
    return {"image": [sample["image"] for sample in samples], "target": places}


def _samples(data: AnnotatedImages, shown: DetectorInput) -> AnnotatedImages:
    return data if shown.tile is None else cut(data, shown.tile, shown.tile_overlap)


def _fitted(section: DetectorSection, train: AnnotatedImages, data: DetectionData) -> AnchorSection:
    """Anchors for the training boxes, as the model sees them."""
    if section.backbone is None or section.name == "fcos":
        raise InputError(
            f"model.anchors=fit needs retinanet, faster_rcnn or mask_rcnn over a backbone, not {section.name}"
        )
    from visionlora.models.timm_detectors import SIZE

    size = section.size or SIZE
    samples = _samples(train, DetectorInput(size, data.tile, data.tile_overlap))
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
