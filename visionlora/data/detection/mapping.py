"""From the pixels of a sample back to those of its image file."""

import torch
import torch.nn.functional as F
from torch import Tensor

from visionlora.data.windows import Window


def boxes_to_original(boxes: Tensor, width: int, height: int, window: Window) -> Tensor:
    """(n, 4) boxes in an evaluation sample of width x height pixels -> in pixels of the image file.

    ``window`` is what the sample shows of it.
    """
    x1, y1, x2, y2 = window
    scale = boxes.new_tensor([(x2 - x1) / width, (y2 - y1) / height] * 2)
    return boxes * scale + boxes.new_tensor([x1, y1, x1, y1])


def paste_masks(masks: Tensor, window: Window, width: int, height: int) -> Tensor:
    """(n, h, w) masks of an evaluation sample -> (n, height, width) bool in pixels of the image file."""
    x1, y1, x2, y2 = window
    pasted = torch.zeros((len(masks), height, width), dtype=torch.bool, device=masks.device)
    # one by one: as floats all at once they could be gigabytes
    for mask, whole in zip(masks, pasted, strict=True):
        whole[y1:y2, x1:x2] = resize_mask(mask, x2 - x1, y2 - y1)
    return pasted


def resize_mask(mask: Tensor, width: int, height: int) -> Tensor:
    """(h, w) of 0 to 1, or bool -> (height, width) bool: resized bilinearly, cut at 0.5."""
    resized = F.interpolate(mask[None, None].float(), (height, width), mode="bilinear", align_corners=False)
    return resized[0, 0] >= 0.5
