"""Samples that can't be read are left out of their batch, which says so."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from visionlora.errors import InputError


@dataclass(frozen=True)
class Unreadable:
    """In the place of a sample: its index, and a line that names the file and says why."""

    index: int
    reason: str


class Tolerant(Dataset[Any]):
    """A data set that gives an ``Unreadable`` where ``dataset`` raises an InputError."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def path_of(self, index: int) -> Path | str:
        """The file of an image, if the data set says it."""
        path_of: Callable[[int], Path | str] = getattr(self.dataset, "path_of", lambda index: f"image {index}")
        return path_of(index)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        try:
            return self.dataset[key]
        except InputError as error:
            return Unreadable(key[1], str(error))


@dataclass(frozen=True)
class CollateReadable:
    """``collate`` for what could be read. ``unreadable`` of the batch lists the rest, where there is some; of a batch
    without any image ``image`` and ``target`` are empty lists.
    """

    collate: Callable[[list[Any]], Any]

    def __call__(self, samples: list[Any]) -> Any:
        """See the class."""
        readable = [sample for sample in samples if not isinstance(sample, Unreadable)]
        unreadable = [sample for sample in samples if isinstance(sample, Unreadable)]
        batch = self.collate(readable) if readable else {"image": [], "target": []}
        return {**batch, "unreadable": unreadable} if unreadable else batch
