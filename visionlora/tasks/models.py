"""A task's models: as they are built, with what one must know to use them, and beside each other."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from torch import nn

from visionlora.models.extended import Extended
from visionlora.tasks.about import Rule
from visionlora.tasks.protocols import Labelled


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


BuiltT = TypeVar("BuiltT", bound=Built)

ShownT = TypeVar("ShownT", bound=Preprocessing)


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
