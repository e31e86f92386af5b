"""What a model gives for one image, and how far two of these are from each other."""

from torch import Tensor

Outputs = dict[str, Tensor]
"""One image's: ``logits``; or ``boxes`` (N, 4), ``labels`` (N,), ``scores`` (N,) and maybe ``masks`` (N, 1, H, W)."""

TOLERANCE = 1e-4
"""Within which an exported model computes the same."""


def logits_difference(found: Outputs, expected: Outputs) -> float:
    """The largest difference of a logit, relative to the largest logit where that is above 1; infinite for NaN."""
    a, b = found["logits"].double(), expected["logits"].double()
    if a.shape != b.shape:
        return float("inf")
    return finite(float((a - b).abs().max() / b.abs().max().clamp(min=1)))


def finite(value: float) -> float:
    """The value, or infinity for NaN."""
    return value if value == value else float("inf")
