"""What segmentation knows: see ``tasks.base.Task``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from visionlora.data.segmentation.segmented import SegmentedImages
from visionlora.data.segmentation.split import load_segmented_split, read_segmented_part
from visionlora.data.segmentation.transforms import whole_image
from visionlora.models.pinning import pinned
from visionlora.models.segmenter import Segmenter, create_segmenter
from visionlora.tasks.about import SegmenterAbout
from visionlora.tasks.base import Chosen, Metrics, PredictOptions, SetUp, Task
from visionlora.tasks.example_code import model_code
from visionlora.tasks.outputs import Outputs
from visionlora.tasks.segmentation.config import SegmentationConfig, SegmenterSection
from visionlora.tasks.segmentation.examples import torchvision_example
from visionlora.tasks.segmentation.figures import class_colors, evaluation_figures
from visionlora.tasks.segmentation.inference import (
    LogitsOfDict,
    SegmenterInput,
    TrainedSegmenter,
    evaluation_loader,
    evaluation_set,
    over_windows,
    predict_masks,
)
from visionlora.tasks.segmentation.metrics import SegmentationMetrics
from visionlora.tasks.segmentation.prediction import ImageMask
from visionlora.tasks.segmentation.training import SegmentationTraining, refuse_single_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LISTED = 4
"""Classes of an image in the table of predictions, those with most pixels."""


class Segmentation(Task[SegmentationConfig, SegmenterSection, Segmenter, SegmenterInput, SegmentedImages]):
    """Semantic segmentation, a class for every pixel."""

    SCHEMA = SegmentationConfig
    ABOUT = SegmenterAbout
    noun = "segmenter"
    counted = "pixels"
    options = ("--draw", "--masks")
    found = "classes with most pixels"
    pipeline = "image-segmentation"
    any_size = True
    answer = "(H, W), each pixel's class: an index into model.classes"

    def set_up(self, config: SegmentationConfig) -> SetUp[Segmenter, SegmenterInput, SegmentedImages]:
        data, section = load_segmented_split(config.data), config.model
        torch.manual_seed(config.train.seed)
        segmenter = self.build(section, data.train.classes)
        refuse_single_images(config, segmenter)
        mean, std = segmenter.data_config["mean"], segmenter.data_config["std"]
        shown = SegmenterInput(section.size, mean, std, config.data.window, config.data.window_overlap)
        name = f"{section.name} over {section.backbone}" if section.backbone else section.name
        images = f"{len(data.train)} images of {len(segmenter.classes)} classes"
        return SetUp(
            built=segmenter,
            classes=segmenter.classes,
            preprocessing=shown,
            training=SegmentationTraining(config, data.train, shown),
            val=data.val,
            settings=section,
            description=f"{name} on {images}, {len(data.val)} to validate",
            skipped=data.skipped,
            faulty=data.faulty,
            train=data.train,
        )

    def describe(self, data: SegmentedImages, metrics: Metrics) -> dict[str, Any]:
        class_map = data.class_map
        return {"colors": [list(color) for color in class_colors(class_map)], "values": class_map.class_values()}

    def build(self, section: SegmenterSection, classes: Sequence[str]) -> Segmenter:
        return create_segmenter(
            section.name,
            classes,
            backbone=section.backbone,
            pretrained=section.pretrained,
            checkpoint=pinned(section.backbone or section.name, section.pretrained, section.checkpoint, section.sha256),
            data_config=section.model_dump(include={"mean", "std"}),
            channels=section.channels,
        )

    def read_preprocessing(self, values: dict[str, Any]) -> SegmenterInput:
        return SegmenterInput.from_dict(values)

    def around(self, model: nn.Module, classes: list[str], about: dict[str, Any]) -> Segmenter:
        return Segmenter(model, [], [], classes, {})

    def images(self, config: SegmentationConfig, part: str, classes: list[str]) -> Chosen[SegmentedImages]:
        if part:
            faulty: list[str] = []
            return Chosen(*read_segmented_part(config.data, part, classes, faulty), faulty)
        split = load_segmented_split(config.data, classes)
        return Chosen(split.val, split.skipped, split.faulty)

    def loader(
        self, trained: TrainedSegmenter, data: SegmentedImages, batch_size: int, workers: int
    ) -> DataLoader[Any]:
        return evaluation_loader(evaluation_set(data, trained.preprocessing), batch_size, workers)

    def metrics(self, trained: TrainedSegmenter, data: SegmentedImages, device: torch.device) -> Metrics:
        return SegmentationMetrics(trained.classes, device=device)

    def predictor(self, trained: TrainedSegmenter) -> Callable[[Tensor], Tensor]:
        """Of whole images, by windows if the settings say so."""
        return over_windows(trained.model, trained.preprocessing)

    def figures(
        self, trained: TrainedSegmenter, data: SegmentedImages, metrics: Metrics, device: torch.device
    ) -> "dict[str, Figure]":
        assert isinstance(metrics, SegmentationMetrics)
        return evaluation_figures(trained, data, metrics, device)

    def settings_of(self, trained: TrainedSegmenter) -> dict[str, Any]:
        return {"window": trained.preprocessing.window, "window_overlap": trained.preprocessing.window_overlap}

    def adjusted(self, trained: TrainedSegmenter, config: SegmentationConfig) -> TrainedSegmenter:
        size, window, overlap = config.model.size, config.data.window, config.data.window_overlap
        shown = replace(trained.preprocessing, size=size, window=window, window_overlap=overlap)
        return replace(trained, preprocessing=shown)

    def predict(
        self, trained: TrainedSegmenter, images: Sequence[np.ndarray], options: PredictOptions, device: torch.device
    ) -> list[ImageMask]:
        return [ImageMask(mask, trained) for mask in predict_masks(trained, images, device)]

    def summary(self, trained: TrainedSegmenter, tally: Mapping[str, float], images: int) -> str:
        most = sorted(tally.items(), key=lambda item: -item[1])[:_LISTED]
        return "  ".join(f"{name} {count / sum(tally.values()):.1%}" for name, count in most if count)

    def truth(self, data: SegmentedImages) -> list[Any]:
        return [
            (
                *(image.width, image.height, image.pixels),
                image.mask.name if isinstance(image.mask, Path) else [thing.plain() for thing in image.mask],
            )
            for image in data.images
        ]

    def paths(self, data: SegmentedImages) -> list[Path]:
        return [image.path for image in data.images]

    def fields(self, data: SegmentedImages) -> list[dict[str, Any]]:
        return [image.fields for image in data.images]

    def to_input(self, image: np.ndarray, preprocessing: SegmenterInput) -> Tensor:
        """The whole, or the first window of it."""
        shown = whole_image(image, preprocessing.size, preprocessing.mean, preprocessing.std)
        return shown if preprocessing.window is None else shown[:, : preprocessing.window, : preprocessing.window]

    def amount(self, outputs: Sequence[Outputs]) -> str:
        return f"{sum(one['logits'][0].numel() for one in outputs)} pixels' logits"

    def reading(self, trained: TrainedSegmenter) -> dict[str, Any]:
        return {key: trained.about[key] for key in ("colors", "values") if key in trained.about}

    def library(self, section: SegmenterSection) -> str:
        return "visionlora" if section.backbone else "torchvision"

    def creation_code(self, trained: TrainedSegmenter) -> str:
        if trained.about["model"].get("backbone"):
            return ""
        return model_code(trained.about["model"]["name"], {"num_classes": len(trained.classes)})

    def example_code(self, trained: TrainedSegmenter) -> str:
        ours = trained.about["model"].get("backbone")
        return torchvision_example(trained, "visionlora" if ours else "torchvision")

    def as_ours(self, model: nn.Module) -> nn.Module:
        """torchvision's give a dict."""
        return LogitsOfDict(model)


TASK = Segmentation()
