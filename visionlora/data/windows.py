"""Windows that an image is seen through, one after the other."""

from visionlora.errors import InputError

Window = tuple[int, int, int, int]
"""(x1, y1, x2, y2) in whole pixels of an image."""


def windows(width: int, height: int, side: int, overlap: int) -> list[Window]:
    """Windows of ``side`` x ``side`` pixels, evenly spread over an image, row by row; clipped to a smaller image.

    Raises:
        InputError: ``overlap`` isn't between 0 and ``side``.
    """
    if not 0 <= overlap < side:
        raise InputError(f"tiles of {side} px can't overlap by {overlap} px; give 0 to {side - 1}")
    return [
        (x, y, min(x + side, width), min(y + side, height))
        for y in _starts(height, side, overlap)
        for x in _starts(width, side, overlap)
    ]


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Where windows begin along one side: as few as cover it."""
    if length <= side:
        return [0]
    steps = -(-(length - side) // (side - overlap))
    return [i * (length - side) // steps for i in range(steps + 1)]
