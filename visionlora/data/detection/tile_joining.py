"""What a detector found in the tiles of an image, joined to what is in the image."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from visionlora.data.detection.mapping import resize_mask
from visionlora.data.windows import Window

Detections = dict[str, Tensor]
"""``boxes`` (n, 4) float, ``labels`` (n,) int64, ``scores`` (n,) float, and maybe ``masks`` (n, h, w)."""


def join_tiles(
    parts: Sequence[Detections],
    windows: Sequence[Window],
    width: int,
    height: int,
    iou: float = 0.5,
    margin: float = 4.0,
    limit: int = 100,
) -> Detections:
    """Join the detections of one image's tiles.

    Two detections of overlapping tiles show the same object if they agree on what both tiles see: they are of
    one class, cut to the common part they overlap by ``iou``, and neither has a better partner. Of such a group
    the best detection that no tile cuts stands for all. Where there is none, as with objects larger than the
    overlap, it is the box (and mask) around all the pieces, with the best score. A piece that lies in a larger
    detection of its class goes, and then ``batched_nms`` is applied.

    Args:
        parts: per tile, at least one. Boxes are in pixels of the whole image, masks are the tile's (0 to 1 or
            bool, in any resolution).
        windows: per tile, in pixels of the image.
        width, height: of the image.
        iou: as above, and NMS's.
        margin: a box that ends so many pixels from an edge of its tile is cut by it, unless the image ends there.
        limit: so many detections are kept at most.

    Returns:
        Detections by falling score; ``masks`` (n, height, width) bool if all parts have them.
    """
    boxes, labels, scores = (torch.cat([part[name] for part in parts]) for name in ("boxes", "labels", "scores"))
    tile = torch.repeat_interleave(torch.tensor([len(part["boxes"]) for part in parts])).to(boxes.device)
    edges = torch.tensor(windows, dtype=boxes.dtype, device=boxes.device)
    whole = ~_cut(boxes, edges[tile], width, height, margin)
    members = [_shown(group, whole, scores) for group in _groups(boxes, labels, tile, edges, iou)]
    joined = {
        "boxes": torch.stack([_around(boxes[group]) for group in members]) if members else boxes,
        "labels": labels[[group[0] for group in members]],
        "scores": torch.stack([scores[group].max() for group in members]) if members else scores,
    }
    kept = _not_in_another(joined["boxes"], joined["labels"], whole[[group[0] for group in members]])
    order = batched_nms(joined["boxes"][kept].float(), joined["scores"][kept].float(), joined["labels"][kept], iou)
    kept = kept[order[:limit]]
    result = {name: values[kept] for name, values in joined.items()}
    if all("masks" in part for part in parts):
        result["masks"] = _masks(parts, windows, [members[i] for i in kept], width, height)
    return result


def _groups(boxes: Tensor, labels: Tensor, tile: Tensor, windows: Tensor, iou: float) -> list[list[int]]:
    """Indices of the detections that show the same object."""
    parent = list(range(len(boxes)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for a, b in combinations(range(len(windows)), 2):
        low, high = torch.maximum(windows[a, :2], windows[b, :2]), torch.minimum(windows[a, 2:], windows[b, 2:])
        if (low >= high).any():
            continue
        here, there = (tile == a).nonzero()[:, 0], (tile == b).nonzero()[:, 0]
        if not len(here) or not len(there):
            continue
        common = torch.cat((boxes[:, :2].clamp(low, high), boxes[:, 2:].clamp(low, high)), dim=1)
        agreement = box_iou(common[here], common[there]).nan_to_num(0)  # nan: neither shows there
        agreement = agreement * (labels[here][:, None] == labels[there])
        best, partner = agreement.max(dim=1)
        mutual = agreement.argmax(dim=0)[partner] == torch.arange(len(here), device=boxes.device)
        for i in ((best >= iou) & mutual).nonzero()[:, 0].tolist():
            parent[root(int(there[partner[i]]))] = root(int(here[i]))
    together: dict[int, list[int]] = {}
    for index in range(len(boxes)):
        together.setdefault(root(index), []).append(index)
    return list(together.values())


def _cut(boxes: Tensor, edges: Tensor, width: int, height: int, margin: float) -> Tensor:
    """Whether each box ends at an edge of its tile (n, 4) that isn't the image's, (n,) bool."""
    end = edges.new_tensor([0, 0, width, height])
    return (((boxes - edges).abs() <= margin) & (edges != end)).any(dim=1)


def _shown(group: list[int], whole: Tensor, scores: Tensor) -> list[int]:
    """The best of the whole detections, or else all pieces."""
    complete = [i for i in group if whole[i]]
    return [max(complete, key=lambda i: float(scores[i]))] if complete else group


def _around(boxes: Tensor) -> Tensor:
    """(n, 4) -> (4,)."""
    return torch.cat((boxes[:, :2].amin(dim=0), boxes[:, 2:].amax(dim=0)))


def _not_in_another(boxes: Tensor, labels: Tensor, whole: Tensor, inside: float = 0.7) -> Tensor:
    """Indices of all but the pieces that lie, by a share of their area, in a larger box of their class."""
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    kept = torch.ones_like(whole)
    for i in (~whole).nonzero()[:, 0].tolist():
        low, high = torch.maximum(boxes[i, :2], boxes[:, :2]), torch.minimum(boxes[i, 2:], boxes[:, 2:])
        common = (high - low).clamp(min=0).prod(dim=1)
        kept[i] = not ((common >= inside * area[i]) & (area > area[i]) & (labels == labels[i])).any()
    return kept.nonzero()[:, 0]


def _masks(
    parts: Sequence[Detections], windows: Sequence[Window], groups: list[list[int]], width: int, height: int
) -> Tensor:
    """The groups' masks, (n, height, width) bool."""
    places = [(part, window, i) for part, window in zip(parts, windows, strict=True) for i in range(len(part["boxes"]))]
    masks = torch.zeros((len(groups), height, width), dtype=torch.bool, device=parts[0]["masks"].device)
    for group, whole in zip(groups, masks, strict=True):
        for part, (x1, y1, x2, y2), i in (places[member] for member in group):
            whole[y1:y2, x1:x2] |= resize_mask(part["masks"][i], x2 - x1, y2 - y1)
    return masks
