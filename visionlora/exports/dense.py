"""What classifiers and segmenters have in common: logits."""

from torch import Tensor, nn

from visionlora.exports.parity import Outputs, logits_difference


def run(model: nn.Module, image: Tensor) -> Outputs:
    """The plain model's outputs for one image (3, h, w)."""
    return {"logits": model(image[None])[0]}


def difference(found: Outputs, expected: Outputs, image: Tensor, model: nn.Module) -> float:
    """See `parity.logits_difference`."""
    del image, model
    return logits_difference(found, expected)
