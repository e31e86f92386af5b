"""What a task is: all that training, evaluating, predicting and exporting ask of one."""

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from visionlora.data.loading import Key
from visionlora.errors import InputError
from visionlora.models.extended import Extended
from visionlora.sections import ModelSection, RunConfig
from visionlora.tasks.about import About, Rule
from visionlora.tasks.outputs import Outputs, logits_difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Batch = dict[str, Any]
"""``image`` and ``target``: tensors, or lists of them."""
Scores = dict[str, float]
Told = tuple[Mapping[str, Any], list[str]]
"""What a model says of itself, and the classes that it is about."""


class Built(Protocol):
    """A plain model as its task builds it: a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def model(self) -> nn.Module:
        """Everything in it can train."""

    @property
    def head(self) -> list[str]:
        """Names of its modules that are new, and train fully."""

    @property
    def unused(self) -> list[str]:
        """Names of its layers that no output depends on: adapters leave them out."""


class Preprocessing(Protocol):
    """How images reach a model."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the model's file."""


class Labelled(Protocol):
    """Images with the truth about them."""

    def __len__(self) -> int: ...

    def counts(self) -> list[int]:
        """Of each class, how many there are of what the task counts."""


ConfigT = TypeVar("ConfigT", bound=RunConfig)
SectionT = TypeVar("SectionT", bound=ModelSection)
BuiltT = TypeVar("BuiltT", bound=Built)
ShownT = TypeVar("ShownT", bound=Preprocessing)
DataT = TypeVar("DataT", bound=Labelled)


@dataclass(frozen=True)
class Trained(Generic[BuiltT, ShownT]):
    """A plain model with what one must know to use it.

    Attributes:
        task: its name.
        built: what the task built, with the trained ``model``: in eval mode.
        classes: names in the order of the outputs.
        preprocessing: how images reach it.
        path: the file that it came from.
        about: what else the file says: model settings, scores, and what the task adds.
    """

    task: str
    built: BuiltT
    classes: list[str]
    preprocessing: ShownT
    path: Path
    about: dict[str, Any]

    @property
    def model(self) -> nn.Module:
        """The plain model."""
        return self.built.model

    def with_model(self, model: nn.Module) -> "Trained[BuiltT, ShownT]":
        """The same about another model."""
        return replace(self, built=replace(self.built, model=model))


@dataclass(frozen=True)
class Known:
    """What a base knows, and how to ask a model with its backbone how much of that it still does.

    Attributes:
        base: the base, with the head that it came with.
        data: images with labels, or with the base's own answers.
        labelled: which of both.
        measure: the score that is asked for.
    """

    base: Trained
    data: Labelled
    labelled: bool
    measure: str

    def with_backbone(self, model: nn.Module) -> Trained:
        """The base's own head on the backbone of a plain model of the same architecture, whose head may be another."""
        own = copy.deepcopy(self.base.model)
        load_backbone(own, model, self.base.built.head)
        return self.base.with_model(own.eval())


def load_backbone(model: nn.Module, source: nn.Module, head: Sequence[str]) -> None:
    """Copy every tensor of a plain model into another of its architecture, but for those of the modules ``head``."""

    def in_head(key: str) -> bool:
        return any(key.startswith(f"{name}.") for name in head)

    tensors = {key: tensor for key, tensor in source.state_dict().items() if not in_head(key)}
    missing = model.load_state_dict(tensors, strict=False).missing_keys
    assert all(map(in_head, missing)), missing


@dataclass(frozen=True)
class Member(Generic[BuiltT]):
    """A model that answers beside the base that it was adapted from.

    Attributes:
        name: what it is called there.
        built: plain, in eval mode.
        classes: all of its own.
        rule: how its answers and the base's become one.
        about: what its file says.
    """

    name: str
    built: BuiltT
    classes: list[str]
    rule: Rule
    about: dict[str, Any]


class Training(Protocol):
    """A task's part of a run: batches and their loss. A class inherits it, for what is done here is right for most.

    Where several processes train, each sees a share of every batch. The batch's loss is then a function, ``loss_of``,
    of sums over its images, ``loss_sums``, and those of the shares add up.

    Attributes:
        loss_parts: the last loss's summands by name, where there are several.
    """

    loss_parts: dict[str, Tensor]

    def train_batches(self, epoch: int) -> list[list[Key]]:
        """The keys of every batch of an epoch; they follow from seed and epoch alone."""

    def train_loader(self, batch_list: list[list[Key]]) -> Iterable[Batch]:
        """Training samples for these batches. One may lack what could not be read, and list it; see ``make_loader``."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of a batch, scalar; the model is in training mode."""

    def loss_sums(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Sums that the loss is made of, by name, differentiable. Overridden where it is no mean over ``amount``."""
        loss, amount = self.loss(model, batch).float(), self.amount(batch)
        return {"mean": torch.stack([loss * amount, loss.new_tensor(amount)])}

    def loss_of(self, sums: Mapping[str, Tensor]) -> Tensor:
        """The loss of a batch, scalar, whose sums these are."""
        total, amount = sums["mean"]
        return total / amount

    def amount(self, batch: Batch) -> float:
        """What that is a mean over, to weigh parts of a batch that is too large: images, if the task says nothing."""
        return len(batch["image"])


class Metrics(Protocol):
    """Scores of one evaluation, accumulated batch by batch."""

    @property
    def names(self) -> Sequence[str]:
        """Scores that higher is better for; by the first the best epoch is chosen, unless the config says otherwise."""

    def update(self, outputs: Any, targets: Any) -> None:
        """Take in a batch: what the task's ``predictor`` gave for its ``image``, and its ``target``."""

    def scores(self) -> Scores:
        """The scores; one that nothing in the images can be measured by is missing."""

    def per_class(self) -> dict[str, Scores]:
        """Class name -> its scores."""

    def details(self) -> dict[str, Any]:
        """What a report holds besides, as plain data."""


@runtime_checkable
class Additive(Protocol):
    """Metrics that several processes can share the images of. Of others, each sees all of them."""

    def state(self) -> Any:
        """What was taken in, with tensors on the CPU."""

    def add(self, state: Any) -> None:
        """Take in what others of the same kind took in, of the images after one's own."""


@dataclass(frozen=True)
class PredictOptions:
    """What may be wanted of a prediction; a task names those that it takes in ``options``.

    Attributes:
        top: how many classes to name.
        min_score: keep what scores at least so much; None for what the model's file suggests.
        thresholds: class -> the same for it alone, before ``min_score``.
        min_size: keep objects whose box is at least as large as a square of so many pixels' side.
    """

    top: int = 3
    min_score: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    min_size: float = 0.0


AddLabels = Callable[[Path, Path | None, np.ndarray, list[dict[str, Any]]], None]
"""Takes an image into a data set: name, file where it is one, (H, W, 3) uint8, and its ``Prediction.entries``."""


class Prediction(Protocol):
    """What was found in one image. Of ``drawn`` and ``write_mask`` a task has what its options ask for."""

    def entries(self, image_id: str) -> list[dict[str, Any]]:
        """Plain data for ``--out``."""

    def tally(self) -> Mapping[str, float]:
        """Name -> amount, to be added up over the images of a video."""

    def drawn(self, image: np.ndarray) -> np.ndarray:
        """The image with what was found, for ``--draw``; (H, W, 3) uint8."""
        raise TypeError(f"{type(self).__name__} has no drawing of {image.shape}")

    def write_mask(self, path: Path) -> None:
        """A class for each pixel as PNG, for ``--masks``."""
        raise TypeError(f"{type(self).__name__} has no mask for {path}")


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
    ) -> "dict[str, Figure]":
        """Pictures of an evaluation, by name."""
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


def head_is_new(built: Built) -> bool:
    """Whether a model's head is zero, as a new one is: a head that weights came with is not."""
    return not any(tensor.any() for name in built.head for tensor in built.model.get_submodule(name).parameters())


def model_of(built: Built, name: str) -> nn.Module:
    """The model of this name in what ``Task.together`` made; the base where it is empty."""
    assert isinstance(built.model, Extended)
    return built.model.others[name] if name else built.model.base


def places_of(member: Member[Any], classes: list[str]) -> list[int]:
    """Where each of a member's classes is among those of all, without what stands for whatever the base sees."""
    background = member.rule.background
    return [classes.index(name) for index, name in enumerate(member.classes) if index != background]
