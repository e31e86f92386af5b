"""Scores of a classifier, by torchmetrics."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visionlora.tasks.adding import add_state, state_of
from visionlora.tasks.protocols import Scores


class ClassificationMetrics:
    """Scores of an evaluation, accumulated batch by batch (torchmetrics).

    Args:
        classes: names in the order of the outputs.
        multilabel: whether an image may have several labels.
        device: of the logits that will come.
        shown: places of images whose logits are to be kept, for pictures.

    Attributes:
        seen: place -> logits (classes,) on the CPU, of the ``shown`` images among those that came here.
    """

    def __init__(
        self, classes: list[str], multilabel: bool, device: torch.device | None = None, shown: Sequence[int] = ()
    ) -> None:
        import torchmetrics.classification as tm
        from torchmetrics import MetricCollection

        n = len(classes)
        alone: Any = {"sync_on_compute": False}  # several processes add their states up themselves
        self.classes, self.multilabel = classes, multilabel
        self.seen: dict[int, Tensor] = {}
        self._shown = shown
        scalars: dict[str, Any]
        per_class: dict[str, Any]
        if multilabel:
            scalars = {
                "mAP": tm.MultilabelAveragePrecision(n, **alone),
                "macro_f1": tm.MultilabelF1Score(n, **alone, average="macro"),
                "micro_f1": tm.MultilabelF1Score(n, **alone, average="micro"),
                "exact_match": tm.MultilabelExactMatch(n, **alone),
            }
            per_class = {
                "precision": tm.MultilabelPrecision(n, **alone, average="none"),
                "recall": tm.MultilabelRecall(n, **alone, average="none"),
                "f1": tm.MultilabelF1Score(n, **alone, average="none"),
            }
            confusion: Any = tm.MultilabelConfusionMatrix(n, **alone)
        else:
            scalars = {"top1": tm.MulticlassAccuracy(n, **alone, average="micro")}
            if n > 5:
                scalars["top5"] = tm.MulticlassAccuracy(n, **alone, top_k=5, average="micro")
            scalars["macro_f1"] = tm.MulticlassF1Score(n, **alone, average="macro")
            scalars["calibration_error"] = tm.MulticlassCalibrationError(n, **alone)
            per_class = {
                "precision": tm.MulticlassPrecision(n, **alone, average="none"),
                "recall": tm.MulticlassRecall(n, **alone, average="none"),
                "f1": tm.MulticlassF1Score(n, **alone, average="none"),
            }
            confusion = tm.MulticlassConfusionMatrix(n, **alone)
        self._order = list(scalars)
        self._scalars = MetricCollection(scalars).to(device)
        self._per_class = MetricCollection(per_class).to(device)
        self._confusion = confusion.to(device)
        self._loss = torch.zeros((), dtype=torch.float64)
        self._count = 0

    @property
    def names(self) -> list[str]:
        """Scores that higher is better for, the most telling first."""
        return [name for name in self._order if name != "calibration_error"]

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: logits (N, classes); labels (N,) int64, or (N, classes) of 0 and 1 if multilabel."""
        logits = logits.float()
        if self.multilabel:
            scores, hard = logits.sigmoid(), labels.long()
            loss = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum") / logits.shape[1]
        else:
            scores, hard = logits.softmax(dim=1), labels
            loss = F.cross_entropy(logits, labels, reduction="sum")
        for metric in self._metrics():
            metric.update(scores, hard)
        for place in self._shown:
            if self._count <= place < self._count + len(logits):
                self.seen[place] = logits[place - self._count].cpu()
        self._loss += loss.double().cpu()
        self._count += len(logits)

    def state(self) -> Any:
        """What was taken in."""
        return [state_of(metric) for metric in self._metrics()], self._loss, self._count

    def add(self, state: Any) -> None:
        """Take in what others took in, of the images after one's own."""
        states, loss, count = state
        for metric, theirs in zip(self._metrics(), states, strict=True):
            add_state(metric, theirs)
        self._loss, self._count = self._loss + loss, self._count + count

    def scores(self) -> Scores:
        """The scalars, and the mean loss (without label smoothing)."""
        values = self._scalars.compute()
        return {**{name: float(values[name]) for name in self._order}, "loss": float(self._loss / self._count)}

    def per_class(self) -> dict[str, Scores]:
        """Class name -> precision, recall, f1."""
        columns = {str(name): values.tolist() for name, values in self._per_class.compute().items()}
        return {name: {key: column[i] for key, column in columns.items()} for i, name in enumerate(self.classes)}

    def details(self) -> dict[str, Any]:
        """What a report holds besides: the confusion matrix."""
        return {"confusion": self.confusion()}

    def confusion(self) -> list[Any]:
        """(classes, classes) counts, rows are the true classes; (classes, 2, 2) if multilabel."""
        matrix: list[Any] = self._confusion.compute().tolist()
        return matrix

    def _metrics(self) -> tuple[Any, ...]:
        return self._scalars, self._per_class, self._confusion
