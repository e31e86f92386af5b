"""What classification knows: see ``tasks.base.Task``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from visionlora.data.classification.labelled import LabelledImages
from visionlora.data.classification.samples import ClassificationDataset
from visionlora.data.classification.split import leave_out_unreadable, load_split, read_part
from visionlora.data.classification.transforms import Preprocessing, eval_transform
from visionlora.data.loading import batches, make_loader
from visionlora.errors import InputError, some
from visionlora.models import timm_models
from visionlora.models.classifier import Classifier, create_classifier, creation_code, stored_outputs
from visionlora.models.extended import Extended
from visionlora.models.joined_outputs import JoinLogits
from visionlora.models.pinning import pinned
from visionlora.models.stated import numbered_classes, stated
from visionlora.sections import RunConfig
from visionlora.tasks.about import ClassifierAbout, Rule
from visionlora.tasks.base import Chosen, SetUp, Task, Told
from visionlora.tasks.base_settings import like_its_file
from visionlora.tasks.classification.config import ClassificationConfig, ClassifierSection
from visionlora.tasks.classification.distilling import Teacher, copy_rows
from visionlora.tasks.classification.examples import torchvision_example
from visionlora.tasks.classification.figures import evaluation_figures, shown_places
from visionlora.tasks.classification.inference import (
    ImageClasses,
    TrainedClassifier,
    classify,
    is_multilabel,
    logits_of,
)
from visionlora.tasks.classification.knowledge import as_base, known_of, outputs_of, read_knowledge, refuse_no_head
from visionlora.tasks.classification.metrics import ClassificationMetrics
from visionlora.tasks.classification.training import ClassificationTraining
from visionlora.tasks.extending import fit_rule, likeness_of
from visionlora.tasks.models import Known, Member, places_of
from visionlora.tasks.protocols import Metrics, PredictOptions
from visionlora.tasks.together import DISTILLED, build_base, joint_classes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Classification(Task[ClassificationConfig, ClassifierSection, Classifier, Preprocessing, LabelledImages]):
    """Image classification, single- and multi-label."""

    SCHEMA = ClassificationConfig
    ABOUT = ClassifierAbout
    noun = "classifier"
    options = ("--top",)
    found = "class and probability"
    pipeline = "image-classification"
    answer = "{class: probability}, the likeliest first"

    def set_up(self, config: ClassificationConfig) -> SetUp[Classifier, Preprocessing, LabelledImages]:
        data = load_split(config.data, config.train.seed)
        torch.manual_seed(config.train.seed)
        section, about, teacher = like_its_file(config.model), dict[str, Any](), None
        images = f"{len(data.train)} images of {len(data.train.classes)} classes, {len(data.val)} to validate"
        if config.train.keep_classes == "distill":
            base = build_base(self, section, config.train.seed)
            classes = joint_classes(base.classes, [("data", data.train.classes, self.rule(config, []))])
            data = replace(data, train=self.among(data.train, classes), val=self.among(data.val, classes))
            teacher, about = Teacher(base.built.model), {DISTILLED: {"classes": base.classes}}
        classifier = self.build(section, data.train.classes)
        if teacher is not None:
            copy_rows(classifier.model, teacher.model, classifier.head)
        preprocessing = Preprocessing.from_timm(classifier.data_config)
        return SetUp(
            built=classifier,
            classes=data.train.classes,
            preprocessing=preprocessing,
            training=ClassificationTraining(config, data, preprocessing, teacher),
            val=data.val,
            settings=section,
            description=f"{config.model.name} on {images}{f'; {data.advice}' if data.advice else ''}",
            skipped=data.skipped,
            faulty=data.faulty,
            train=data.train,
            about=about,
        )

    def known(self, config: ClassificationConfig, images: Path, device: torch.device) -> Known:
        paths, labelled = read_knowledge(images)
        outputs = outputs_of(config.model, labelled)
        with torch.random.fork_rng():
            torch.manual_seed(config.train.seed)
            built = self.build(config.model, [str(index) for index in range(outputs)])
        refuse_no_head(built, images, outputs)
        base = as_base(built, outputs, Preprocessing.from_timm(built.data_config), images)
        return known_of(base, paths, labelled, config.train.batch_size, config.data.workers, device)

    def describe(self, data: LabelledImages, metrics: Metrics) -> dict[str, Any]:
        return {"multilabel": data.multilabel}

    def build(self, section: ClassifierSection, classes: Sequence[str]) -> Classifier:
        size = (section.img_size, section.img_size) if isinstance(section.img_size, int) else section.img_size
        return create_classifier(
            section.name,
            len(classes),
            pretrained=section.pretrained,
            checkpoint=pinned(section.name, section.pretrained, section.checkpoint, section.sha256),
            img_size=size,
            data_config=section.model_dump(include={"mean", "std", "interpolation", "crop_pct"}),
            drop_rate=section.drop_rate,
            drop_path_rate=section.drop_path_rate,
        )

    def read_preprocessing(self, values: dict[str, Any]) -> Preprocessing:
        return Preprocessing.from_dict(values)

    def around(self, model: nn.Module, classes: list[str], about: dict[str, Any]) -> Classifier:
        return Classifier(model, [], {})

    def own_classes(self, section: ClassifierSection) -> list[str]:
        if (said := stated(section.checkpoint)) is not None:
            return said.classes
        outputs = stored_outputs(section.name, section.pretrained, section.checkpoint)
        if not outputs:
            raise InputError(
                f"{section.source}: holds no head, so there are no classes of it to keep (train.keep_classes)"
            )
        return numbered_classes(outputs)

    def together(self, base: Classifier, classes: list[str], members: Sequence[Member[Classifier]]) -> Classifier:
        rules = {one.name: one.rule for one in members}
        places = {one.name: places_of(one, classes) for one in members}
        join = JoinLogits({name: rule.shift for name, rule in rules.items()}, places, likeness_of(rules))
        model = Extended(base.model, {one.name: one.built.model for one in members}, join)
        return replace(base, model=model, head=[])

    def about_together(self, abouts: Sequence[Told], classes: list[str]) -> dict[str, Any]:
        return {"multilabel": False}

    def rule(self, config: ClassificationConfig, classes: list[str]) -> Rule:
        if config.data.multilabel:
            raise InputError("train.keep_classes is for one label per image; leave out data.multilabel")
        if config.train.keep_overlap is not None:
            raise InputError("train.keep_overlap is for detectors; leave it out")
        return Rule(merge=config.train.merge_classes)

    def fit_rule(
        self,
        base: TrainedClassifier,
        alone: TrainedClassifier,
        data: LabelledImages,
        config: ClassificationConfig,
        device: torch.device,
    ) -> Rule:
        """See ``extending.fit_rule``."""
        old, new = (self.logits(one, data, config, device) for one in (base, alone))
        return fit_rule(old, new).model_copy(update={"merge": config.train.merge_classes})

    def agreement(
        self,
        base: TrainedClassifier,
        trained: TrainedClassifier,
        data: LabelledImages,
        config: ClassificationConfig,
        device: torch.device,
    ) -> float:
        """Of the images, on which the likeliest of the base's classes is the one that the base says."""
        before, now = (self.logits(one, data, config, device) for one in (base, trained))
        return float((before.argmax(1) == now[:, : before.shape[1]].argmax(1)).float().mean())

    def logits(
        self, trained: TrainedClassifier, data: LabelledImages, config: RunConfig, device: torch.device
    ) -> Tensor:
        """What a model answers on all of the images, (N, classes), on the CPU."""
        return logits_of(trained, self.loader(trained, data, config.train.batch_size, config.data.workers), device)

    def among(self, data: LabelledImages, classes: list[str]) -> LabelledImages:
        places = [classes.index(name) for name in data.classes]
        labels = [tuple(places[label] for label in one) for one in data.labels]
        return replace(data, labels=labels, classes=classes)

    def images(self, config: ClassificationConfig, part: str, classes: list[str]) -> Chosen[LabelledImages]:
        data = config.data
        if chosen := part or (None if data.hold_out else data.val):
            faulty: list[str] = []
            images = read_part(data, chosen, classes, faulty)
            unreadable = leave_out_unreadable(images.paths, data, faulty)
            skipped = sorted(unreadable) if data.faulty == "refuse" else []
            return Chosen(images.without(unreadable), skipped, faulty)
        split = load_split(data, config.train.seed)
        if config.train.keep_classes and set(split.val.classes) <= set(classes):
            return Chosen(self.among(split.val, classes), split.skipped, split.faulty)
        if split.val.classes != classes:
            raise InputError(
                f"the data's classes ({some(split.val.classes)}) are not the model's ({some(classes)}); "
                f"name the part of the data to evaluate on: --part"
            )
        return Chosen(split.val, split.skipped, split.faulty)

    def loader(
        self, trained: TrainedClassifier, data: LabelledImages, batch_size: int, workers: int
    ) -> DataLoader[Any]:
        dataset = ClassificationDataset(data, eval_transform(trained.preprocessing), seed=0, train=False)
        return make_loader(dataset, batches(list(range(len(dataset))), 0, batch_size, drop_last=False), workers)

    def metrics(self, trained: TrainedClassifier, data: LabelledImages, device: torch.device) -> Metrics:
        return ClassificationMetrics(trained.classes, data.multilabel, device, shown_places(len(data)))

    def figures(
        self, trained: TrainedClassifier, data: LabelledImages, metrics: Metrics, device: torch.device
    ) -> "Mapping[str, Figure | np.ndarray]":
        assert isinstance(metrics, ClassificationMetrics)
        return evaluation_figures(trained, data, metrics, device)

    def settings_of(self, trained: TrainedClassifier) -> dict[str, Any]:
        return {"multilabel": is_multilabel(trained)}

    def adjusted(self, trained: TrainedClassifier, config: ClassificationConfig) -> TrainedClassifier:
        several = is_multilabel(trained)
        if config.data.multilabel != several:
            raise InputError(f"{trained.path} was trained with data.multilabel={str(several).lower()}; evaluate it so")
        return trained

    def predict(
        self,
        trained: TrainedClassifier,
        images: Sequence[np.ndarray],
        options: PredictOptions,
        device: torch.device,
    ) -> list[ImageClasses]:
        return [ImageClasses(labels) for labels in classify(trained, images, options.top, device)]

    def summary(self, trained: TrainedClassifier, tally: Mapping[str, float], images: int) -> str:
        best = sorted(tally.items(), key=lambda item: -item[1])
        return "  ".join(f"{name} {value / images:.3f}" for name, value in best)

    def truth(self, data: LabelledImages) -> list[Any]:
        return data.labels

    def paths(self, data: LabelledImages) -> list[Path]:
        return data.paths

    def to_input(self, image: np.ndarray, preprocessing: Preprocessing) -> Tensor:
        return eval_transform(preprocessing)(image)

    def amount(self, outputs: Any) -> str:
        return f"{sum(one['logits'].numel() for one in outputs)} logits"

    def reading(self, trained: TrainedClassifier) -> dict[str, Any]:
        return {"multilabel": is_multilabel(trained)}

    def library(self, section: ClassifierSection) -> str:
        return "timm" if timm_models.is_known(section.name) else "torchvision"

    def creation_code(self, trained: TrainedClassifier) -> str:
        shown = trained.preprocessing
        return creation_code(trained.about["model"]["name"], len(trained.classes), (shown.height, shown.width))

    def example_code(self, trained: TrainedClassifier) -> str:
        return torchvision_example(trained)


TASK = Classification()
