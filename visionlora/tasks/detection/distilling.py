"""What a base detector sees in images whose labels name other classes only, as labels beside those."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torchvision.ops import box_iou

from visionlora.data.annotations.annotated import AnnotatedImage, AnnotatedImages, LabelledObject
from visionlora.data.images import read_image
from visionlora.tasks.detection.inference import TrainedDetector, predict_detections, thresholds_of

SAME = 0.5
"""IoU from which on two boxes are of one object."""


def with_the_bases(data: AnnotatedImages, base: TrainedDetector, device: torch.device) -> AnnotatedImages:
    """The same images with what the base finds in them, above the scores that its file suggests (0.5 without).

    What overlaps a labelled object by more than ``SAME`` is that object, seen wrongly, and is left out.

    Args:
        data: whose classes begin with the base's.
        base: its model is moved to the device.
        device: to compute on.
    """
    base.model.to(device)
    thresholds = thresholds_of(base)

    def seen(image: AnnotatedImage) -> AnnotatedImage:
        (found,) = predict_detections(base, [read_image(image.path)], thresholds, device)
        labelled = torch.tensor([thing.box for thing in image.objects]).reshape(-1, 4)
        apart = ~(box_iou(found["boxes"], labelled) > SAME).any(dim=1)
        boxes = found["boxes"][apart].double().round(decimals=1).tolist()  # so that a resumed run finds them again
        objects = [
            LabelledObject(label, (x1, y1, x2, y2), source="the base")
            for (x1, y1, x2, y2), label in zip(boxes, found["labels"][apart].tolist(), strict=True)
            if x2 > x1 and y2 > y1
        ]
        return replace(image, objects=(*image.objects, *objects))

    return replace(data, images=[seen(image) for image in data.images])


def found_again(before: Sequence[dict[str, Tensor]], now: Sequence[dict[str, Tensor]]) -> tuple[int, int]:
    """How many of the objects of each image are still found with the same label, and how many there were."""
    same = many = 0
    for old, new in zip(before, now, strict=True):
        near = box_iou(old["boxes"], new["boxes"]) >= SAME
        same += int((near & (old["labels"][:, None] == new["labels"][None])).any(dim=1).sum())
        many += len(old["boxes"])
    return same, many
