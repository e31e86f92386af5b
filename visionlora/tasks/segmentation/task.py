"""What segmentation knows: see ``tasks.base.Task``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from visionlora.data.segmentation.class_map import MOST_CLASSES
from visionlora.data.segmentation.segmented import SegmentedImages, among
from visionlora.data.segmentation.split import load_segmented_split, read_segmented_part
from visionlora.data.segmentation.transforms import whole_image
from visionlora.errors import InputError, some
from visionlora.models.extended import Extended
from visionlora.models.joined_outputs import JoinPixels
from visionlora.models.pinning import pinned
from visionlora.models.segmenter import Segmenter, create_segmenter, own_classes
from visionlora.tasks.about import Rule, SegmenterAbout
from visionlora.tasks.base import Chosen, SetUp, Task, Told
from visionlora.tasks.base_settings import like_its_file
from visionlora.tasks.drawing import class_color
from visionlora.tasks.example_code import model_code
from visionlora.tasks.models import Member, model_of, places_of
from visionlora.tasks.outputs import Outputs
from visionlora.tasks.protocols import Metrics, PredictOptions
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
from visionlora.tasks.together import trains_above, whole_models

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
    has_background = True
    answer = "(H, W), each pixel's class: an index into model.classes"

    def set_up(self, config: SegmentationConfig) -> SetUp[Segmenter, SegmenterInput, SegmentedImages]:
        if config.train.keep_classes == "distill":
            raise InputError("train.keep_classes=distill is for classifiers and detectors; a segmenter takes true")
        data, section = load_segmented_split(config.data), like_its_file(config.model)
        torch.manual_seed(config.train.seed)
        segmenter = self.build(section, data.train.classes)
        if trains_above(config, section.backbone):
            segmenter = replace(segmenter, head=["decoder"])
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

    def own_classes(self, section: SegmenterSection) -> list[str]:
        own = own_classes(section.name, section.backbone, section.pretrained, section.checkpoint)
        return whole_models(own, section, self.noun)

    def rule(self, config: SegmentationConfig, classes: list[str]) -> Rule:
        if config.train.keep_overlap is not None:
            raise InputError("train.keep_overlap is for detectors; leave it out")
        if config.data.background not in classes:
            raise InputError(
                f"train.keep_classes needs a class of the data for whatever the base sees, and data.background="
                f"{config.data.background} is none of {some(classes)}"
            )
        return Rule(background=classes.index(config.data.background), merge=config.train.merge_classes)

    def together(self, base: Segmenter, classes: list[str], members: Sequence[Member[Segmenter]]) -> Segmenter:
        if len(classes) > MOST_CLASSES:
            raise InputError(f"base and new ones have {len(classes)} classes together, and {MOST_CLASSES} is the most")
        backgrounds = {one.name: one.rule.background for one in members if one.rule.background is not None}
        if missing := [one.name for one in members if one.name not in backgrounds]:
            raise InputError(f"{missing[0]}: does not say which of its classes stands for what the base sees")
        others = {one.name: one.built.model for one in members}
        places = {one.name: places_of(one, classes) for one in members}
        model = Extended(base.model, others, JoinPixels(backgrounds, places))
        return replace(base, model=model, head=[], unused=[], classes=classes)

    def apart(self, built: Segmenter, name: str, classes: list[str]) -> Segmenter:
        return replace(built, model=model_of(built, name), classes=classes)

    def about_together(self, abouts: Sequence[Told], classes: list[str]) -> dict[str, Any]:
        """With the colours of each, and values that count the classes: those of each may be others'."""
        known: dict[str, Any] = {}
        for about, own in abouts:
            known = dict(zip(own, about.get("colors") or (), strict=False)) | known
        colors = [known.get(name, list(class_color(index))) for index, name in enumerate(classes)]
        return {"colors": colors, "values": list(range(len(classes)))}

    def among(self, data: SegmentedImages, classes: list[str]) -> SegmentedImages:
        return among(data, classes)

    def images(self, config: SegmentationConfig, part: str, classes: list[str]) -> Chosen[SegmentedImages]:
        if config.train.keep_classes:
            return self._images_among(config, part, classes)
        if part:
            faulty: list[str] = []
            return Chosen(*read_segmented_part(config.data, part, classes, faulty), faulty)
        split = load_segmented_split(config.data, classes)
        return Chosen(split.val, split.skipped, split.faulty)

    def _images_among(self, config: SegmentationConfig, part: str, classes: list[str]) -> Chosen[SegmentedImages]:
        """Of data that have only some of the classes, and maybe a background that is none of them."""
        split = load_segmented_split(config.data)
        found, skipped, faulty = split.val, split.skipped, split.faulty
        if unknown := [name for name in found.classes if name not in (*classes, config.data.background)]:
            raise InputError(f"the data's {some(unknown, 3)} are none of the model's classes ({some(classes)})")
        if part:
            faulty = []
            found, skipped = read_segmented_part(config.data, part, found.classes, faulty)
        return Chosen(among(found, classes), skipped, faulty)

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
