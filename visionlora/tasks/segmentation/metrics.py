"""Scores of a segmenter, from the confusion matrix of its pixels (torchmetrics)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from visionlora.data.segmentation.class_map import IGNORE
from visionlora.tasks.adding import add_state, state_of
from visionlora.tasks.protocols import Scores
from visionlora.tasks.segmentation.windows import classes_at


class SegmentationMetrics:
    """Scores of an evaluation, accumulated batch by batch.

    Args:
        classes: names in the order of the outputs.
        ignore: the target's value of pixels that don't count.
        device: of the logits that will come.
    """

    names = ("mIoU", "pixel_accuracy", "mean_accuracy")
    """Scores, all of which higher is better for."""

    def __init__(self, classes: list[str], ignore: int = IGNORE, device: torch.device | None = None) -> None:
        from torchmetrics.classification import MulticlassConfusionMatrix

        self.classes, self.ignore = classes, ignore
        # Its own checks look for all values in each batch, which costs more than to count; ``update`` checks instead.
        metric = MulticlassConfusionMatrix(
            len(classes), ignore_index=ignore, validate_args=False, sync_on_compute=False
        )
        self._confusion: Any = metric.to(device)

    def update(self, output: Tensor, target: Tensor | Sequence[Tensor]) -> None:
        """Take in images.

        Args:
            output: logits (N, C, H, W) or classes (N, H, W).
            target: (N, H, W); or N of (H, W), of any sizes, to which logits are resized.

        Raises:
            ValueError: of another size than the target, or a class that there isn't.
        """
        if not isinstance(target, Tensor):
            for logits, own in zip(output, target, strict=True):
                self.update(classes_at(logits, (own.shape[0], own.shape[1]))[None], own[None])
            return
        found = output.argmax(dim=1) if output.is_floating_point() else output
        if found.shape != target.shape:
            raise ValueError(
                f"the output is {tuple(found.shape)} and the target {tuple(target.shape)}; resize the logits"
            )
        valid = target != self.ignore
        found, target = found[valid], target[valid]
        for labels in (found, target):
            if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
                raise ValueError(
                    f"labels from {int(labels.min())} to {int(labels.max())} of {len(self.classes)} classes"
                )
        self._confusion.update(found, target)

    def state(self) -> Any:
        """What was taken in."""
        return state_of(self._confusion)

    def add(self, state: Any) -> None:
        """Take in what others took in."""
        add_state(self._confusion, state)

    def scores(self) -> Scores:
        """The scalars.

        - ``mIoU``: mean over the classes that occur, in the target or in the output;
        - ``pixel_accuracy``: share of the pixels that are right;
        - ``mean_accuracy``: mean over the classes that the target shows, of the share of their pixels that is right.

        All are 0 where there is no pixel.
        """
        matrix = self._matrix()
        right, true, found = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
        union = true + found - right
        return {
            "mIoU": _mean((right / union)[union > 0]),
            "pixel_accuracy": float(right.sum() / true.sum().clamp(min=1)),
            "mean_accuracy": _mean((right / true)[true > 0]),
        }

    def per_class(self) -> dict[str, Scores]:
        """Class name -> IoU, and accuracy; without what can't be measured, for the class does not occur."""
        matrix = self._matrix()
        right, true, found = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
        columns = {"IoU": (right / (true + found - right)).tolist(), "accuracy": (right / true).tolist()}
        return {
            name: {key: column[i] for key, column in columns.items() if not math.isnan(column[i])}
            for i, name in enumerate(self.classes)
        }

    def details(self) -> dict[str, Any]:
        """What a report holds besides: the confusion matrix."""
        return {"confusion": self.confusion()}

    def confusion(self) -> list[list[int]]:
        """(classes, classes) counts of pixels, rows are the true classes."""
        matrix: list[list[int]] = self._confusion.compute().tolist()
        return matrix

    def _matrix(self) -> Tensor:
        """(classes, classes) float64 on the CPU: float32 can't count beyond 16 million."""
        matrix: Tensor = self._confusion.compute().cpu().double()
        return matrix


def _mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else 0.0
