"""From an image's objects to what a detector trains on and is measured against."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from visionlora.data.annotations.annotated import LabelledObject
from visionlora.data.annotations.masks import Patch, area_through, box_of, patch_through
from visionlora.data.geometry import MIN_VISIBLE, View, areas, clip_boxes, move_boxes, visible_share

Target = dict[str, Any]
"""torchvision's: ``boxes`` (n, 4) float32 x1 y1 x2 y2; ``labels`` (n,) int64, from 0; ``iscrowd`` (n,) int64; ``area``
(n,) float32, of the mask if there is one; and maybe ``masks`` (n, H, W) uint8. All in pixels of the view."""

MIN_SIDE = 1.0
"""An object with a side below this many pixels of the view is no training target."""

_ROUNDING = 1e-6


def make_target(objects: Sequence[LabelledObject], view: View, masks: bool, train: bool) -> Target:
    """The objects as a view shows them.

    To train on, crowds are left out, and so is what is hardly visible (less than ``MIN_VISIBLE`` of the mask's
    area, or of the box's without masks) or too small (``MIN_SIDE``). In evaluation all stays that lies in the
    view. A box moves with the view; where that cuts the object or tilts it, it becomes the box around the
    mask's visible part. A mask of which no pixel is left gets the one at its box's centre.
    """
    chosen = [thing for thing in objects if not (train and thing.crowd)]
    moved = move_boxes(np.array([thing.box for thing in chosen], np.float64).reshape(-1, 4), view)
    boxes, share = clip_boxes(moved, view.width, view.height), visible_share(moved, view)
    patches: dict[int, Patch] = {}
    for i in np.flatnonzero(share > 0).tolist() if masks else ():
        patches[i], boxes[i], share[i] = _seen(chosen[i], boxes[i], share[i], view)
    kept = share > 0
    if train:
        sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
        kept &= (share >= MIN_VISIBLE) & (sides > MIN_SIDE - _ROUNDING)
    which = np.flatnonzero(kept).tolist()
    target = {
        "boxes": torch.from_numpy(boxes[which].astype(np.float32)),
        "labels": torch.tensor([chosen[i].label for i in which], dtype=torch.int64),
        "iscrowd": torch.tensor([chosen[i].crowd for i in which], dtype=torch.int64),
        "area": torch.from_numpy(areas(boxes[which]).astype(np.float32)),
    }
    if masks:
        shown = [patches[i] for i in which]
        target["masks"] = torch.zeros((len(shown), view.height, view.width), dtype=torch.uint8)
        target["area"] = torch.tensor([pixels.sum() for pixels, _, _ in shown], dtype=torch.float32)
        for whole, (pixels, x, y) in zip(target["masks"], shown, strict=True):
            whole[y : y + pixels.shape[0], x : x + pixels.shape[1]] = torch.from_numpy(pixels)
    return target


def _seen(thing: LabelledObject, box: np.ndarray, share: float, view: View) -> tuple[Patch, np.ndarray, float]:
    """The mask's visible part, and the box and the visible share, given those of the box alone."""
    if thing.mask is None:  # only a crowd
        x, y, right, bottom = np.round(box).astype(int).tolist()
        pixels = np.ones((bottom - y, right - x), np.uint8)
    else:
        pixels, x, y = patch_through(thing.mask, view.matrix, view.width, view.height)
        cut = share < 1 - _ROUNDING
        if cut:
            share = float(pixels.sum()) / max(1.0, area_through(thing.mask, view.matrix))
        if (cut or not view.upright) and pixels.any():
            left, top, right, bottom = box_of(pixels)
            box = np.array((x + left, y + top, x + right, y + bottom), np.float64)
    if not pixels.any():
        x, y = ((box[:2] + box[2:]) / 2).astype(int).tolist()
        pixels = np.ones((1, 1), np.uint8)
    return (pixels, min(x, view.width - 1), min(y, view.height - 1)), box, share
