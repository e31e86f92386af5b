"""What passes between a task and whoever trains, evaluates and predicts with it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from visionlora.data.loading import Key

Batch = dict[str, Any]
"""``image`` and ``target``: tensors, or lists of them."""

Scores = dict[str, float]


class Labelled(Protocol):
    """Images with the truth about them."""

    def __len__(self) -> int: ...

    def counts(self) -> list[int]:
        """Of each class, how many there are of what the task counts."""


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
