"""A segmenter on images that are larger than what it was trained on, and back to the image's own pixels."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from visionlora.data.windows import windows


def predict_windows(
    model: Callable[[Tensor], Tensor], image: Tensor, side: int, overlap: int, batch_size: int = 4
) -> Tensor:
    """Logits of images, averaged over overlapping windows.

    Windows are spread evenly, share at least ``overlap`` pixels with the next one, and weigh most at their
    centre, where the model sees most of the surroundings. An image that is smaller than a window is filled up with 0.
    No gradients.

    Args:
        model: (n, 3, side, side) -> (n, C, side, side) logits.
        image: (N, 3, H, W).
        side, overlap: in pixels.
        batch_size: how many windows the model gets at once.

    Returns:
        (N, C, H, W) float32.

    Raises:
        InputError: ``overlap`` isn't between 0 and ``side``.
    """
    height, width = image.shape[2:]
    filled = F.pad(image, (0, max(0, side - width), 0, max(0, side - height)))
    places = windows(filled.shape[3], filled.shape[2], side, overlap)
    weight = _bump(side, image.device)  # (side, side)
    queue = [(i, x, y) for i in range(len(image)) for x, y, _, _ in places]
    total: Tensor | None = None
    norm = torch.zeros(filled.shape[2:], device=image.device)
    for x, y, _, _ in places:
        norm[y : y + side, x : x + side] += weight
    with torch.no_grad():
        for start in range(0, len(queue), batch_size):
            chosen = queue[start : start + batch_size]
            logits = model(torch.stack([filled[i, :, y : y + side, x : x + side] for i, x, y in chosen])).float()
            if total is None:
                total = torch.zeros((len(image), logits.shape[1], *filled.shape[2:]), device=image.device)
            for (i, x, y), part in zip(chosen, logits, strict=True):
                total[i, :, y : y + side, x : x + side] += part * weight
    assert total is not None
    return (total / norm)[:, :, :height, :width]


def classes_at(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, h, w) logits of an image -> (H, W) int64, the class of each pixel of its file, which has the height and width
    ``size``.

    Logits are resized bilinearly, one class after the other: all at once would take C times the memory.
    """
    best = torch.full(size, -torch.inf, device=logits.device)
    found = torch.zeros(size, dtype=torch.int64, device=logits.device)
    for label, plane in enumerate(logits):
        resized = F.interpolate(plane[None, None].float(), size, mode="bilinear", align_corners=False)[0, 0]
        better = resized > best
        best, found = best.where(~better, resized), found.where(~better, label)
    return found


def _bump(side: int, device: torch.device) -> Tensor:
    """(side, side): sin^2 along each side, never quite 0, 1 at the centre."""
    place = (torch.arange(side, device=device) + 0.5) / side
    along = torch.sin(torch.pi * place) ** 2 + 1e-3
    return along[:, None] * along
