"""Pictures whose every object has a colour of its own, so that pixels tell where an object is."""

from dataclasses import dataclass

import numpy as np

from visionlora.data.annotations.annotated import LabelledObject, Polygons, RunLengths
from visionlora.data.annotations.masks import encode
from visionlora.data.geometry import FILL

GROUND = (40, 40, 40)
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255))


@dataclass(frozen=True)
class Picture:
    """(H, W, 3) uint8, and objects of which number i has label i and colour i."""

    image: np.ndarray
    objects: list[LabelledObject]


def draw(generator: np.random.Generator, width: int, height: int, shape: str, mask: str = "") -> Picture:
    """Up to six objects that don't overlap: each "rectangle" or "ellipse", with "polygon" or "run lengths" masks."""
    image = np.full((height, width, 3), GROUND, np.uint8)
    objects: list[LabelledObject] = []
    taken = np.zeros((height, width), np.uint8)
    for _ in range(100):
        w, h = generator.integers(24, 110, 2).tolist()
        x, y = int(generator.integers(0, width - w)), int(generator.integers(0, height - h))
        if len(objects) == len(COLOURS) or taken[max(0, y - 3) : y + h + 3, max(0, x - 3) : x + w + 3].any():
            continue
        ring = outline(x, y, w, h, shape)
        pixels = np.zeros((height, width), np.uint8)
        across = (np.arange(width) + 0.5 - x) / w * 2 - 1
        down = (np.arange(height) + 0.5 - y) / h * 2 - 1
        if shape == "rectangle":
            pixels[y : y + h, x : x + w] = 1
        else:
            pixels[down[:, None] ** 2 + across**2 <= 1] = 1
        image[pixels > 0] = COLOURS[len(objects)]
        taken |= pixels
        shapes: dict[str, Polygons | RunLengths | None] = {
            "": None,
            "polygon": Polygons((ring,)),
            "run lengths": whole_mask(pixels),
        }
        objects.append(LabelledObject(len(objects), (x, y, x + w, y + h), shapes[mask]))
    return Picture(image, objects)


def whole_mask(pixels: np.ndarray) -> RunLengths:
    """(H, W) of 0 and 1 as the mask of an image of that size."""
    return encode((pixels, 0, 0), pixels.shape[1], pixels.shape[0])


def outline(x: float, y: float, w: float, h: float, shape: str) -> tuple[float, ...]:
    if shape == "rectangle":
        return (x, y, x + w, y, x + w, y + h, x, y + h)
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    points = np.stack((x + w / 2 * (1 + np.cos(angle)), y + h / 2 * (1 + np.sin(angle))), axis=1)
    return tuple(points.ravel().tolist())


def labels_of(image: np.ndarray) -> np.ndarray:
    """(H, W): for each pixel the object whose colour is the nearest; more than there are for ground and filling."""
    palette = np.array([*COLOURS, GROUND, FILL], np.int32)
    # |a - b|^2 = |a|^2 - 2ab + |b|^2; the first is the same for all
    distance = (palette**2).sum(axis=1) - 2 * (image.reshape(-1, 3).astype(np.float32) @ palette.T.astype(np.float32))
    return distance.argmin(axis=1).reshape(image.shape[:2])


def extent(pixels: np.ndarray) -> list[int]:
    """x1, y1, x2, y2 around the pixels that are set."""
    ys, xs = np.nonzero(pixels)
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two masks."""
    first, second = first.astype(bool), second.astype(bool)
    return float((first & second).sum() / max(1, (first | second).sum()))
