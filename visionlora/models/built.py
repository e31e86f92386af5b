"""What both kinds of detectors are built to."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class BuiltDetector:
    """A model and what ``detector.Detector`` says of it.

    Attributes:
        model, head, unused: as there.
        labels: its ``model_labels``.
        size: its ``data_config["size"]`` unless another one is asked for.
    """

    model: nn.Module
    head: list[str]
    unused: list[str]
    labels: tuple[int, ...]
    size: int
