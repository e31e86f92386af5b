"""What a trained model's file says of itself: its classes, preprocessing and base, checked before anything is built."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from visionlora.adapters.header_schema import check_number_of_classes
from visionlora.errors import InputError, shown
from visionlora.plain_json import read_json

Name = Annotated[str, Field(max_length=1000)]


Names = Annotated[list[Name], Field(min_length=1)]


KEEPS = "keeps"
"""In what an adapter's file says of itself, that its base answers beside it."""


class Rule(BaseModel):
    """How what an adapter answers and what its base answers become one answer.

    Attributes:
        shift: of a classifier, what is added to the adapter's logits.
        means: of a classifier, those of the roots of the base's probabilities over images of the adapter's classes.
        least: of a classifier, how like these an image must be for one of these classes to win; see ``Likeness``.
        overlap: of a detector, the IoU above which of two boxes the one with the lower score goes; None for never.
        background: of a segmenter, which of the adapter's classes stands for whatever the base sees there.
        merge: a class of the adapter's that bears the name of one before is that class: either may answer it.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    shift: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    means: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(max_length=100_000)] | None = None
    least: Annotated[float, Field(gt=0, le=1)] | None = None
    overlap: Annotated[float, Field(ge=0, lt=1)] | None = None
    background: Annotated[int, Field(ge=0)] | None = None
    merge: bool = False


class Keeps(BaseModel):
    """In an adapter's file: its base answers beside it.

    Attributes:
        classes: the base's, in the order of its outputs.
        head: fingerprints of those of the base's tensors that the file does not know otherwise, by name.
        rule: of the two.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    classes: Names
    head: Annotated[dict[Name, Annotated[str, Field(pattern="^[0-9a-f]{16}$")]], Field(max_length=10_000)]
    rule: Rule = Rule()


def keeps_of(about: Mapping[str, Any]) -> Keeps | None:
    """What an adapter's file says of the base that answers beside it, if one does. ValidationError if it is damaged."""
    return Keeps.model_validate(about[KEEPS]) if about.get(KEEPS) else None


class Part(BaseModel):
    """One of the models that answer beside a base: its name, all of its classes, and the rule."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: Annotated[str, Field(pattern="^[^.]+$", max_length=200)]
    classes: Names
    rule: Rule = Rule()


class Together(BaseModel):
    """A base and models that were adapted from it, as one model: the base's classes, and the others in turn."""

    model_config = ConfigDict(strict=True, extra="forbid")

    classes: Names
    parts: Annotated[list[Part], Field(min_length=1, max_length=100)]


class Distilled(BaseModel):
    """Of a model that learnt its base's classes from the base's answers: these."""

    model_config = ConfigDict(strict=True, extra="forbid")

    classes: Names


class About(BaseModel):
    """What every task writes; a task's own ``ABOUT`` has more. Unknown entries are let pass.

    Attributes:
        EACH: entries that are lists of something for each class.
    """

    model_config = ConfigDict(strict=True)
    EACH: ClassVar[tuple[str, ...]] = ()

    task: Name = "classification"
    model: dict[str, Any]
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    scores: dict[str, float] = {}
    keeps: Keeps | None = None
    together: Together | None = None
    distilled: Distilled | None = None


class ClassifierAbout(About):
    """Of a classifier."""

    multilabel: bool = False


class DetectorAbout(About):
    """Of a detector: the score from which on an object of a class is kept."""

    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}


Color = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]


class SegmenterAbout(About):
    """Of a segmenter: colour and value in mask files of each class."""

    EACH = ("colors", "values")
    colors: list[Color] | None = None
    values: list[Annotated[int, Field(ge=0, le=65_535)]] | None = None


def check_about(schema: type[About], about: dict[str, Any], classes: list[str], path: Path) -> None:
    """Raise InputError unless what the file says is what the task's schema asks for."""
    try:
        found = schema.model_validate(about)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = first["msg"][0].lower() + first["msg"][1:]
        raise InputError(f"{path}: {where} is {shown(first['input'])}: {reason}; save it again") from error
    for name in schema.EACH:
        values = getattr(found, name)
        if values is not None and len(values) != len(classes):
            raise InputError(f"{path}: {name} has {len(values)} entries for {len(classes)} classes; save it again")


def read_plain_fields(fields: dict[str, str], path: Path) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """Classes, preprocessing and the rest, of a file of plain weights.

    Raises:
        InputError: they are missing or of the wrong kind.
    """
    try:
        classes, preprocessing, about = (read_json(fields[key]) for key in ("classes", "preprocessing", "extra"))
    except KeyError as error:
        raise InputError(f"{path}: holds weights, but not what a run writes with them; give a run's file") from error
    except InputError as error:
        raise InputError(f"{path}: what it says of itself is damaged ({error}); save it again") from error
    check_kinds(classes, preprocessing, about, path)
    return classes, preprocessing, about


def check_kinds(classes: Any, preprocessing: Any, about: Any, path: Path) -> None:
    """Raise InputError unless these are a list of names and two tables."""
    if not isinstance(classes, list) or not all(isinstance(name, str) and len(name) <= 1000 for name in classes):
        raise InputError(f"{path}: its class names are {shown(classes)}; save it again with names")
    for name, value in (("preprocessing", preprocessing), ("description", about)):
        if not isinstance(value, dict):
            raise InputError(f"{path}: its {name} is {shown(value)}; save it again")


def refuse_many_classes(classes: list[str], shapes: Iterable[tuple[int, ...]], path: Path) -> None:
    """Raise InputError if no tensor of the file can be the head for so many classes."""
    try:
        check_number_of_classes(classes, shapes)
    except ValueError as error:
        raise InputError(f"{path}: {error}; save it again") from error
