"""What a task is: all that training, evaluating, predicting and exporting ask of one."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from visionlora.errors import InputError
from visionlora.sections import ModelSection, RunConfig
from visionlora.tasks.about import About, Rule
from visionlora.tasks.models import BuiltT, Known, Member, ShownT, Trained, model_of
from visionlora.tasks.outputs import Outputs, logits_difference
from visionlora.tasks.protocols import AddLabels, Labelled, Metrics, Prediction, PredictOptions, Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Told = tuple[Mapping[str, Any], list[str]]
"""What a model says of itself, and the classes that it is about."""


ConfigT = TypeVar("ConfigT", bound=RunConfig)
SectionT = TypeVar("SectionT", bound=ModelSection)
DataT = TypeVar("DataT", bound=Labelled)


@dataclass(frozen=True)
class SetUp(Generic[BuiltT, ShownT, DataT]):
    """What a task makes of a config.

    Attributes:
        built: the plain model.
        classes: names in the order of the outputs.
        preprocessing: how images reach it.
        training: batches and their loss.
        val: the images to validate on.
        settings: the config's section of the model, as it was used, to build it again from.
        description: one line about model and data.
        skipped: files that were left out because they can't be read.
        faulty: a line for each fault of the annotations that was passed over, as asked.
        keep_statistics: full fine-tuning too leaves BatchNorm's running statistics as they are.
        train: the images to train on, or the parts of them that the keys of ``training`` count. Without it a resumed
            run does not know them again, and a step that is skipped does not name its files.
        about: what the model's file says besides.
    """

    built: BuiltT
    classes: list[str]
    preprocessing: ShownT
    training: Training
    val: DataT
    settings: ModelSection
    description: str
    skipped: list[Path] = field(default_factory=list)
    faulty: list[str] = field(default_factory=list)
    keep_statistics: bool = False
    train: DataT | None = None
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Chosen(Generic[DataT]):
    """Images to evaluate on; ``skipped`` and ``faulty`` say what was left out of them, as in ``SetUp``."""

    data: DataT
    skipped: list[Path] = field(default_factory=list)
    faulty: list[str] = field(default_factory=list)


class Task(Protocol[ConfigT, SectionT, BuiltT, ShownT, DataT]):
    """A task knows how to be trained, evaluated, used and exported; what most tasks do alike is done here.

    Attributes:
        SCHEMA: of its configs.
        ABOUT: of what its models' files say of themselves, ``describe`` included.
        noun: what its models are called, as in "is a classifier".
        counted: what an evaluation counts of each class.
        options: those of ``visionlora predict`` that not all tasks take, and it does.
        found: heading of what ``visionlora predict`` shows of each image.
        pipeline: the model hub's name of the task, for the model card; empty where it has none.
        takes_lists: its models take lists of images, (3, H, W) each, and return a list of dicts of tensors, as
            torchvision's detectors do; else they take (N, 3, H, W) and return one tensor.
        any_size: its models see images of any size.
        has_background: one of the classes may stand for whatever the others are not.
        answer: in words, what an exported predict.py gives for an image.
    """

    SCHEMA: type[ConfigT]
    ABOUT: type[About] = About
    noun: str
    counted: str = "images"
    options: Collection[str] = ()
    found: str = "found"
    pipeline: str = ""
    takes_lists: bool = False
    any_size: bool = False
    has_background: bool = False
    answer: str = "the model's raw outputs"

    # to be trained

    def set_up(self, config: ConfigT) -> SetUp[BuiltT, ShownT, DataT]:
        """Read the images, and build the model for their classes. InputError for whatever can't be used."""

    def known(self, config: ConfigT, images: Path, device: torch.device) -> Known:
        """What the run's base knows of these images. InputError where there is no asking it."""
        del config, device
        raise InputError(f"train.retain={images}: is for classifiers, and this run is of a {self.noun}")

    def describe(self, data: DataT, metrics: Metrics) -> dict[str, Any]:
        """What a file must say besides so that the model can be used without the data it was validated on."""
        del data, metrics
        return {}

    # to be loaded

    def build(self, section: SectionT, classes: Sequence[str]) -> BuiltT:
        """The plain model for these classes that a config's section names."""

    def without_base(self, section: SectionT, path: Path) -> SectionT:
        """What to build a model from whose every tensor will be loaded from the file ``path``."""
        del path
        return section.model_copy(update={"checkpoint": None, "pretrained": False, "sha256": None})

    def read_preprocessing(self, values: dict[str, Any]) -> ShownT:
        """The inverse of ``to_dict``."""

    def around(self, model: nn.Module, classes: list[str], about: dict[str, Any]) -> BuiltT:
        """What ``build`` makes, around a model that does the same work: an exported one."""

    # to answer beside its base

    def own_classes(self, section: SectionT) -> list[str]:
        """The classes of the head that the base of a config's section came with. InputError if it has none."""
        del section
        raise InputError(f"train.keep_classes is not for {self.noun}s")

    def together(self, base: BuiltT, classes: list[str], members: Sequence[Member[BuiltT]]) -> BuiltT:
        """A base and models that were adapted from it, as one that knows all ``classes``."""
        raise TypeError(f"{self.noun}s do not answer together: {classes} of {base} and {members}")

    def apart(self, built: BuiltT, name: str, classes: list[str]) -> BuiltT:
        """Of what ``together`` made, the model of this name with its own classes; the base where it is empty."""
        del classes
        return replace(built, model=model_of(built, name))

    def about_together(self, abouts: Sequence[Told], classes: list[str]) -> dict[str, Any]:
        """What models say of themselves, each with its classes, as one with all of these says it; the base is first."""
        del abouts, classes
        return {}

    def rule(self, config: ConfigT, classes: list[str]) -> Rule:
        """What the settings say of how answers become one, before anything is trained for these classes.

        Raises:
            InputError: with them it can't be had.
        """
        del config, classes
        return Rule()

    def fit_rule(
        self,
        base: Trained[BuiltT, ShownT],
        alone: Trained[BuiltT, ShownT],
        data: DataT,
        config: ConfigT,
        device: torch.device,
    ) -> Rule:
        """How the answers of both become one, by images that show the classes of ``alone``."""
        del base, data, device
        return self.rule(config, alone.classes)

    def agreement(
        self,
        base: Trained[BuiltT, ShownT],
        trained: Trained[BuiltT, ShownT],
        data: DataT,
        config: ConfigT,
        device: torch.device,
    ) -> float:
        """The share of what the base says of images that a model, whose classes begin with the base's, says, too."""
        del base, data, config, device
        raise TypeError(f"{self.noun}s are not compared with their base: {trained.path}")

    def among(self, data: DataT, classes: list[str]) -> DataT:
        """The same images with their classes in their places among these."""
        raise TypeError(f"images of {self.noun}s are not known by other classes: {classes} of {data}")

    # to be evaluated

    def images(self, config: ConfigT, part: str, classes: list[str]) -> Chosen[DataT]:
        """The images of a part, by default the run's validation.

        Raises:
            InputError: they can't be read, or have other classes than the model.
        """

    def loader(self, trained: Trained[BuiltT, ShownT], data: DataT, batch_size: int, workers: int) -> DataLoader[Any]:
        """All of the images, as the model sees them."""

    def metrics(self, trained: Trained[BuiltT, ShownT], data: DataT, device: torch.device) -> Metrics:
        """To be fed with what ``predictor`` gives for ``loader``'s batches."""

    def predictor(self, trained: Trained[BuiltT, ShownT]) -> Callable[[Any], Any]:
        """What gives the outputs that the metrics take."""
        return trained.model

    def figures(
        self, trained: Trained[BuiltT, ShownT], data: DataT, metrics: Metrics, device: torch.device
    ) -> "Mapping[str, Figure | np.ndarray]":
        """Pictures of an evaluation by name, figures or pixels (H, W, 3)."""
        del trained, data, metrics, device
        return {}

    def settings_of(self, trained: Trained[BuiltT, ShownT]) -> dict[str, Any]:
        """What a file alone says of the config's section ``data``."""
        del trained
        return {}

    def adjusted(self, trained: Trained[BuiltT, ShownT], config: ConfigT) -> Trained[BuiltT, ShownT]:
        """The model used as the config says. InputError where it can't be."""
        del config
        return trained

    def files(self, data: DataT) -> Sequence[Path]:
        """The file of each image, or part of one, in the order in which keys count them."""
        return self.paths(data)

    def truth(self, data: DataT) -> Sequence[Any]:
        """What the data say of each image, as plain values without folders; a resumed run knows its data by them."""
        return data.counts()

    # to predict

    def predict(
        self,
        trained: Trained[BuiltT, ShownT],
        images: Sequence[np.ndarray],
        options: PredictOptions,
        device: torch.device,
    ) -> Sequence[Prediction]:
        """What is in whole images, (H, W, 3) uint8 RGB of any sizes. The model is on the device."""

    def labels(self, trained: Trained[BuiltT, ShownT], out: Path, form: str) -> AbstractContextManager[AddLabels]:
        """What to call with each image, for ``--labels``; ``out`` is whole when the block ends, and else absent."""
        raise TypeError(f"{self.noun}s of {trained.path} write no {form} labels into {out}")

    def summary(self, trained: Trained[BuiltT, ShownT], tally: Mapping[str, float], images: int) -> str:
        """In a few words, what was found: ``tally`` is the sum of all images'."""
        del trained
        return "  ".join(f"{name} {value / images:.3f}" for name, value in tally.items())

    # to be exported

    def paths(self, data: DataT) -> list[Path]:
        """The files of images that are good to compare models on."""

    def fields(self, data: DataT) -> list[dict[str, Any]]:
        """What is known of each image, to score them in groups; empty where nothing is."""
        del data
        return []

    def to_input(self, image: np.ndarray, preprocessing: ShownT) -> Tensor:
        """(H, W, 3) uint8 RGB -> (3, h, w), what the model sees of it, or of a part of it."""

    def run(self, model: nn.Module, image: Tensor) -> Outputs:
        """The plain model's outputs for one image (3, h, w)."""
        return {"logits": model(image[None])[0]}

    def difference(self, found: Outputs, expected: Outputs, image: Tensor, model: nn.Module) -> float:
        """How far outputs are from those of the plain ``model``; infinite where they can't be compared."""
        del image, model
        return logits_difference(found, expected)

    def amount(self, outputs: Sequence[Outputs]) -> str:
        """In words, what of the images' outputs is compared."""
        return f"{sum(one['logits'].numel() for one in outputs)} outputs"

    def reading(self, trained: Trained[BuiltT, ShownT]) -> dict[str, Any]:
        """What one must know, beside classes and preprocessing, to read the outputs."""
        del trained
        return {}

    def library(self, section: SectionT) -> str:
        """Whose code builds the plain model: ``timm``, ``torchvision`` or ``visionlora``."""
        del section
        return "visionlora"

    def creation_code(self, trained: Trained[BuiltT, ShownT]) -> str:
        """Python that creates the plain ``model``, without weights, by its library alone; empty for visionlora's."""
        del trained
        return ""

    def example_code(self, trained: Trained[BuiltT, ShownT]) -> str:
        """Python that goes on from the plain ``model`` to what is in an image."""
        del trained
        return "print(model)"

    def as_ours(self, model: nn.Module) -> nn.Module:
        """A model as its library makes it -> one with the plain model's interface."""
        return model
