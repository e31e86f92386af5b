"""What detection knows: see ``tasks.base.Task``."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from visionlora.data.annotations.annotated import AnnotatedImages, among
from visionlora.data.annotations.split import AnnotatedSplit, choose_part, load_annotated_split, read_annotated
from visionlora.data.detection.transforms import DetectionEvalTransform
from visionlora.data.images import read_image
from visionlora.errors import InputError
from visionlora.models.anchors import Anchors
from visionlora.models.detector import Detector, create_detector, own_classes
from visionlora.models.extended import Extended
from visionlora.models.joined_outputs import JoinDetections
from visionlora.models.pinning import pinned
from visionlora.models.timm_detectors import above_backbone
from visionlora.tasks.about import DetectorAbout, Rule
from visionlora.tasks.base import Chosen, SetUp, Task, Told
from visionlora.tasks.base_settings import like_its_file
from visionlora.tasks.detection.config import AnchorSection, DetectionConfig, DetectorSection
from visionlora.tasks.detection.distilling import found_again, with_the_bases
from visionlora.tasks.detection.evaluation import DetectionEvaluation, evaluation_loader, evaluation_set
from visionlora.tasks.detection.examples import torchvision_code, torchvision_example
from visionlora.tasks.detection.figures import evaluation_figures, shown_indices
from visionlora.tasks.detection.inference import (
    DetectorInput,
    TrainedDetector,
    as_alone,
    large_enough,
    predict_detections,
    thresholds_of,
)
from visionlora.tasks.detection.labels import labelled_folder
from visionlora.tasks.detection.parity import detections_difference
from visionlora.tasks.detection.prediction import ImageObjects
from visionlora.tasks.detection.training import DetectionTraining, fitted
from visionlora.tasks.models import Member, Trained, model_of, places_of
from visionlora.tasks.outputs import Outputs
from visionlora.tasks.protocols import AddLabels, Metrics, PredictOptions
from visionlora.tasks.together import DISTILLED, build_base, joint_classes, trains_above, whole_models

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Detection(Task[DetectionConfig, DetectorSection, Detector, DetectorInput, AnnotatedImages]):
    """Object detection, with masks where the data and the model have them."""

    SCHEMA = DetectionConfig
    ABOUT = DetectorAbout
    noun = "detector"
    counted = "objects"
    options = ("--draw", "--labels", "--min-score", "--threshold", "--min-size", "--track", "--zone", "--line")
    found = "objects found"
    pipeline = "object-detection"
    takes_lists = True
    answer = "[{class, score, box}, ...], boxes in pixels of the image"

    def set_up(self, config: DetectionConfig) -> SetUp[Detector, DetectorInput, AnnotatedImages]:
        data, section = load_annotated_split(config.data), like_its_file(config.model)
        if section.anchors == "fit":
            section = section.model_copy(update={"anchors": fitted(section, data.train, config.data)})
        about: dict[str, Any] = {}
        if config.train.keep_classes == "distill":
            data, about = self._with_the_bases(data, section, config)
        torch.manual_seed(config.train.seed)
        detector = self.build(section, data.train.classes)
        if trains_above(config, section.backbone):
            detector = self._more_trains(detector, section, config)
        shown = DetectorInput(detector.data_config["size"], config.data.tile, config.data.tile_overlap)
        training = DetectionTraining(config, data.train, detector, shown)
        name = f"{section.name} over {section.backbone}" if section.backbone else section.name
        classes = detector.classes
        objects = f"{sum(data.train.counts())} objects of {len(classes)} class{'es' * (len(classes) > 1)}"
        tiles = f" ({len(training.train_set)} tiles)" if shown.tile else ""
        return SetUp(
            built=detector,
            classes=classes,
            preprocessing=shown,
            training=training,
            val=data.val,
            settings=section,
            description=f"{name} on {len(data.train)} images{tiles} with {objects}, {len(data.val)} to validate",
            skipped=data.skipped,
            faulty=data.faulty,
            keep_statistics=True,  # a detector's batches are too small to measure them, as torchvision's own have it
            train=training.train_set.data,
            about=about,
        )

    def _more_trains(self, detector: Detector, section: DetectorSection, config: DetectionConfig) -> Detector:
        """With pyramid and head to train whole; made anew where the base answers with its own beside them.

        With adapters on a base's own, or trained whole from there, new classes are learnt less well
        (docs/new-classes.md).
        """
        if config.train.keep_classes == "distill":
            return replace(detector, head=above_backbone(detector.model))
        anew = self.build(self.without_base(section, config.out), detector.classes)
        body = detector.model.get_submodule("backbone.body").state_dict()
        anew.model.get_submodule("backbone.body").load_state_dict(body)
        return replace(detector, model=anew.model, head=above_backbone(anew.model))

    def _with_the_bases(
        self, data: AnnotatedSplit, section: DetectorSection, config: DetectionConfig
    ) -> tuple[AnnotatedSplit, dict[str, Any]]:
        """With what the base sees in the training images as labels, and what the model's file says of that."""
        base = build_base(self, section, config.train.seed)
        detector: Any = base.built
        if detector.masks:
            raise InputError("train.keep_classes=distill is for boxes, and this detector makes masks; take true")
        classes = joint_classes(base.classes, [("data", data.train.classes, self.rule(config, []))])
        shown = DetectorInput(detector.data_config["size"], config.data.tile, config.data.tile_overlap)
        path = section.checkpoint or config.out
        teacher: TrainedDetector = Trained(config.task, detector, base.classes, shown, path, base.about)
        train, val = among(data.train, classes), among(data.val, classes)
        device = torch.device("cuda" if torch.cuda.is_available() and config.train.device != "cpu" else "cpu")
        seen = with_the_bases(train, teacher, device)
        return replace(data, train=seen, val=val), {DISTILLED: {"classes": base.classes}}

    def describe(self, data: AnnotatedImages, metrics: Metrics) -> dict[str, Any]:
        assert isinstance(metrics, DetectionEvaluation)
        return {"thresholds": metrics.thresholds()}

    def build(self, section: DetectorSection, classes: Sequence[str]) -> Detector:
        anchors = None
        if isinstance(section.anchors, AnchorSection):
            sizes, ratios = section.anchors.sizes, section.anchors.aspect_ratios
            anchors = Anchors(tuple(map(tuple, sizes)), tuple(map(tuple, ratios)))
        return create_detector(
            section.name,
            classes,
            backbone=section.backbone,
            pretrained=section.pretrained,
            checkpoint=pinned(section.backbone or section.name, section.pretrained, section.checkpoint, section.sha256),
            size=section.size,
            data_config=section.model_dump(include={"mean", "std"}),
            levels=section.levels,
            fpn_channels=section.fpn_channels,
            head_convs=section.head_convs,
            anchors=anchors,
        )

    def without_base(self, section: DetectorSection, path: Path) -> DetectorSection:
        if section.backbone is None and (section.pretrained or section.checkpoint):
            # torchvision's pretrained detectors are built otherwise than its fresh ones: outputs, BatchNorm's eps.
            return section.model_copy(update={"checkpoint": path, "sha256": None})
        return super().without_base(section, path)

    def read_preprocessing(self, values: dict[str, Any]) -> DetectorInput:
        return DetectorInput.from_dict(values)

    def around(self, model: nn.Module, classes: list[str], about: dict[str, Any]) -> Detector:
        return Detector(model, [], [], classes, tuple(about["model_labels"]), about["masks"], {})

    def own_classes(self, section: DetectorSection) -> list[str]:
        own = own_classes(section.name, section.backbone, section.pretrained, section.checkpoint)
        return whole_models(own, section, self.noun)

    def rule(self, config: DetectionConfig, classes: list[str]) -> Rule:
        return Rule(overlap=config.train.keep_overlap, merge=config.train.merge_classes)

    def together(self, base: Detector, classes: list[str], members: Sequence[Member[Detector]]) -> Detector:
        overlaps = {one.rule.overlap for one in members}
        if len(overlaps) > 1:
            told = ", ".join(f"{one.name} {one.rule.overlap}" for one in members)
            raise InputError(f"what stands beside the base was made with different train.keep_overlap: {told}")
        above = {name: max(one.model_labels) + 1 for name, one in [("", base), *((m.name, m.built) for m in members)]}
        labels, start, same = list(base.model_labels), above[""], dict[str, dict[int, int]]()
        for one in members:
            own = dict(zip(one.built.model_labels, places_of(one, classes), strict=True))
            same[one.name] = {label: labels[place] for label, place in own.items() if place < len(labels)}
            labels += [start + label for label in own if label not in same[one.name]]
            start += above[one.name]
        join = JoinDetections(above, overlaps.pop(), same)
        model = Extended(base.model, {one.name: one.built.model for one in members}, join)
        return replace(base, model=model, head=[], unused=[], classes=classes, model_labels=tuple(labels))

    def apart(self, built: Detector, name: str, classes: list[str]) -> Detector:
        assert isinstance(built.model, Extended) and isinstance(built.model.join, JoinDetections)
        above = built.model.join.labels[name]
        own = range(above - len(classes), above) if name else built.model_labels[: len(classes)]
        return replace(built, model=model_of(built, name), classes=classes, model_labels=tuple(own))

    def about_together(self, abouts: Sequence[Told], classes: list[str]) -> dict[str, Any]:
        found = {name: score for about, _ in abouts for name, score in about.get("thresholds", {}).items()}
        return {"thresholds": {name: score for name, score in found.items() if name in classes}}

    def agreement(
        self,
        base: TrainedDetector,
        trained: TrainedDetector,
        data: AnnotatedImages,
        config: DetectionConfig,
        device: torch.device,
    ) -> float:
        """Of the objects that the base finds, those that are still found; 1 where it finds none."""
        same = many = 0
        for model in (base.model, trained.model):
            model.to(device)
        for image in data.images:
            pixels = [read_image(image.path)]
            before, now = (predict_detections(one, pixels, thresholds_of(one), device) for one in (base, trained))
            again, there = found_again(before, now)
            same, many = same + again, many + there
        return same / many if many else 1.0

    def among(self, data: AnnotatedImages, classes: list[str]) -> AnnotatedImages:
        return among(data, classes)

    def images(self, config: DetectionConfig, part: str, classes: list[str]) -> Chosen[AnnotatedImages]:
        data = config.data
        if not part or data.annotations is None:
            split = load_annotated_split(data, classes)
            return Chosen(split.val, split.skipped, split.faulty)
        path = data.val_annotations if part == "val" and data.val_annotations is not None else data.annotations
        faulty: list[str] = []
        images, skipped = read_annotated(data, path, classes, faulty)
        return Chosen(images if part == "all" else choose_part(data, images, part), skipped, faulty)

    def loader(self, trained: TrainedDetector, data: AnnotatedImages, batch_size: int, workers: int) -> DataLoader[Any]:
        return evaluation_loader(evaluation_set(data, trained.preprocessing), batch_size, workers)

    def metrics(self, trained: TrainedDetector, data: AnnotatedImages, device: torch.device) -> Metrics:
        return DetectionEvaluation(trained.built, data, shown_indices(data))

    def predictor(self, trained: TrainedDetector) -> Callable[[Any], Any]:
        """Of each image what the model gives for it alone."""
        return as_alone(trained.model)

    def figures(
        self, trained: TrainedDetector, data: AnnotatedImages, metrics: Metrics, device: torch.device
    ) -> "dict[str, Figure]":
        assert isinstance(metrics, DetectionEvaluation)
        return evaluation_figures(trained, data, metrics, device)

    def settings_of(self, trained: TrainedDetector) -> dict[str, Any]:
        return {"tile": trained.preprocessing.tile, "tile_overlap": trained.preprocessing.tile_overlap}

    def adjusted(self, trained: TrainedDetector, config: DetectionConfig) -> TrainedDetector:
        shown = trained.preprocessing
        if config.model.size not in (None, shown.size):
            raise InputError(
                f"model.size is {config.model.size}, and the detector resizes images to {shown.size} px itself"
            )
        shown = replace(shown, tile=config.data.tile, tile_overlap=config.data.tile_overlap)
        return replace(trained, preprocessing=shown)

    def predict(
        self, trained: TrainedDetector, images: Sequence[np.ndarray], options: PredictOptions, device: torch.device
    ) -> list[ImageObjects]:
        thresholds = thresholds_of(trained, options.min_score, options.thresholds)
        found = predict_detections(trained, images, thresholds, device)
        return [ImageObjects(large_enough(one, options.min_size), trained.classes) for one in found]

    def labels(self, trained: TrainedDetector, out: Path, form: str) -> AbstractContextManager[AddLabels]:
        return labelled_folder(out, form, trained.classes)

    def summary(self, trained: TrainedDetector, tally: Any, images: int) -> str:
        return "  ".join(f"{name} {tally[name]}" for name in trained.classes if tally.get(name)) or "nothing"

    def files(self, data: AnnotatedImages) -> list[Path]:
        return [image.path for image in data.images]

    def truth(self, data: AnnotatedImages) -> list[Any]:
        return [(image.width, image.height, [thing.plain() for thing in image.objects]) for image in data.images]

    def paths(self, data: AnnotatedImages) -> list[Path]:
        return [image.path for image in data.images if image.objects] or [image.path for image in data.images]

    def fields(self, data: AnnotatedImages) -> list[dict[str, Any]]:
        return [image.fields for image in data.images]

    def to_input(self, image: np.ndarray, preprocessing: DetectorInput) -> Tensor:
        """In 0 to 1; of tiles the one nearest the middle."""
        places = preprocessing.windows(image.shape[1], image.shape[0])
        x1, y1, x2, y2 = places[len(places) // 2]
        return DetectionEvalTransform(preprocessing.size)(np.ascontiguousarray(image[y1:y2, x1:x2]), ())[0]

    def run(self, model: nn.Module, image: Tensor) -> Outputs:
        """``labels`` as the model counts."""
        outputs: Outputs = model([image])[0]
        return outputs

    def difference(self, found: Outputs, expected: Outputs, image: Tensor, model: nn.Module) -> float:
        one = model.base if isinstance(model, Extended) else model
        suppressing: Any = one.roi_heads if hasattr(one, "roi_heads") else one
        return detections_difference(found, expected, max(image.shape[1:]), suppressing.nms_thresh)

    def amount(self, outputs: Sequence[Outputs]) -> str:
        return f"{sum(len(one['scores']) for one in outputs)} detections"

    def reading(self, trained: TrainedDetector) -> dict[str, Any]:
        detector = trained.built
        thresholds = dict(zip(trained.classes, thresholds_of(trained), strict=True))
        return {"thresholds": thresholds, "model_labels": list(detector.model_labels), "masks": detector.masks}

    def library(self, section: DetectorSection) -> str:
        return "visionlora" if section.backbone else "torchvision"

    def creation_code(self, trained: TrainedDetector) -> str:
        return "" if trained.about["model"].get("backbone") else torchvision_code(trained)

    def example_code(self, trained: TrainedDetector) -> str:
        return torchvision_example(trained)


TASK = Detection()
