"""Over how many things each of a detector's losses is a mean: torchvision's detectors divide by what they find out on
the way, and where a batch is seen in parts, the parts' means count for as many as each had.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN
from torchvision.models.detection.ssd import SSD

Watch = Callable[[tuple[Any, ...], Any], None]
"""Takes what a function was called with, and what it gave."""


def counted_losses(model: nn.Module, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A detector's losses by name, each as (2,): the sum over its things, and how many they are.

    RetinaNet averages over images, FCOS and SSD divide by the anchors or places that show an object, an R-CNN by those
    that it sampled, and its masks by the sampled boxes that show one (torchvision/models/detection: retinanet.py,
    fcos.py, ssd.py, rpn.py, roi_heads.py). A detector of another kind is taken for one that averages over images.
    """
    by_name: dict[str, Tensor] = {}
    otherwise: Tensor | int = len(images)

    def matched(given: tuple[Any, ...], _result: Any) -> None:
        nonlocal otherwise
        otherwise = _total([indices >= 0 for indices in given[-1]])  # one index an anchor, below 0 for none

    def sampled_anchors(_given: tuple[Any, ...], result: Any) -> None:
        positive, negative = result
        by_name["loss_objectness"] = by_name["loss_rpn_box_reg"] = _total([*positive, *negative])

    def sampled_boxes(_given: tuple[Any, ...], result: Any) -> None:
        labels = result[2]
        by_name["loss_classifier"] = by_name["loss_box_reg"] = _total([label >= 0 for label in labels])
        by_name["loss_mask"] = _total([label > 0 for label in labels])

    with ExitStack() as watching:
        if isinstance(model, FCOS | SSD):
            place = model.head if isinstance(model, FCOS) else model
            watching.enter_context(_watched(place, "compute_loss", matched))
        elif isinstance(model, FasterRCNN):
            watching.enter_context(_watched(model.rpn, "fg_bg_sampler", sampled_anchors))
            watching.enter_context(_watched(model.roi_heads, "select_training_samples", sampled_boxes))
        losses: dict[str, Tensor] = model(images, targets)
    sums = {}
    for name, loss in losses.items():
        count = torch.as_tensor(by_name.get(name, otherwise), dtype=torch.float32, device=loss.device)
        sums[name] = torch.stack([loss.float() * count.clamp(min=1), count])
    return sums


def _total(masks: Sequence[Tensor]) -> Tensor:
    """How many are set in all of the masks."""
    return torch.stack([mask.sum() for mask in masks]).sum()


@contextmanager
def _watched(owner: nn.Module, name: str, watch: Watch) -> Iterator[None]:
    """Each call of the owner's function is told to ``watch``."""
    plain, own = getattr(owner, name), vars(owner).get(name)

    def call(*given: Any) -> Any:
        result = plain(*given)
        watch(given, result)
        return result

    setattr(owner, name, call)
    try:
        yield
    finally:
        delattr(owner, name)
        if own is not None:
            setattr(owner, name, own)
