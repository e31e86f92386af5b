"""How an image is laid onto the model's input: one affine map, for its pixels and its objects alike.

Every view of an image has the size that it has in evaluation, so that training shows the same shapes.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from visionlora.data.annotations.masks import between_centres

MIN_VISIBLE = 0.25
"""An object of which a view shows less than this share of its area is no training target."""

FILL = (124, 116, 104)
"""Colour beside the image, ImageNet's mean: about 0 once normalised, like the padding of a batch. Never a
reflection: that would show objects that have no box."""

_TRIES = 8


@dataclass(frozen=True)
class View:
    """A map from an image's pixels to those of a view, and the view's size.

    Attributes:
        matrix: (2, 3), on coordinates that count from the corner: the first pixel reaches from 0 to 1.
        width, height: of the view, in pixels.
    """

    matrix: np.ndarray
    width: int
    height: int

    @property
    def upright(self) -> bool:
        """Whether rows stay rows: no rotation or shear."""
        return not self.matrix[0, 1] and not self.matrix[1, 0]


@dataclass(frozen=True)
class Moves:
    """Ranges that random views are drawn from.

    Attributes:
        zoom: size of objects relative to evaluation, the logarithm drawn evenly; 1 lies between the two.
        tilt: up to so many degrees either way, in half of the views.
        shear: along x, likewise.
        mirror: whether half of the views are mirrored.
    """

    zoom: tuple[float, float]
    tilt: float = 0.0
    shear: float = 0.0
    mirror: bool = True


def whole_view(width: int, height: int, size: int) -> View:
    """The whole image, its longest side resized to ``size``, both to 2 at least: OpenCV loses a side of 1."""
    scale = size / max(width, height)
    across, down = max(2, round(width * scale)), max(2, round(height * scale))
    return View(_scale(across / width, down / height)[:2], across, down)


def random_view(
    width: int,
    height: int,
    size: int,
    boxes: np.ndarray,
    moves: Moves,
    generator: np.random.Generator,
    window: tuple[int, int] | None = None,
) -> View:
    """A view that is zoomed, moved, tilted and mirrored at random.

    Of a few draws it is the first that leaves no object visible yet below ``MIN_VISIBLE``, else the one with the
    fewest: such an object is in the picture without being a target. Where none keeps an object, the whole
    image is shown.

    Args:
        boxes: (n, 4) of the objects, in pixels of the image.
        window: width and height of the view; by default the whole image's.
    """
    whole = whole_view(width, height, size)
    if window is not None:
        whole = View(whole.matrix, *window)
    zoom = math.exp(generator.uniform(*np.log(moves.zoom)))
    after = np.eye(3)
    if (moves.tilt or moves.shear) and generator.random() < 0.5:
        after = _tilt(whole, generator.uniform(-1, 1) * moves.tilt, generator.uniform(-1, 1) * moves.shear)
    if moves.mirror and generator.random() < 0.5:
        after = _shift(whole.width, 0) @ _scale(-1, 1) @ after
    best, fewest = View((after @ _square(whole.matrix))[:2], whole.width, whole.height), len(boxes) + 1
    for _ in range(_TRIES):
        placed = _placed(width, height, whole, zoom, generator.random(), generator.random())
        view = View((after @ placed)[:2], whole.width, whole.height)
        share = visible_share(move_boxes(boxes, view), view)
        hidden = int(((share > 0) & (share < MIN_VISIBLE)).sum())
        if hidden < fewest and (not len(boxes) or share.max() >= MIN_VISIBLE):
            best, fewest = view, hidden
        if fewest == 0:
            break
    return best


def show(image: np.ndarray, view: View) -> np.ndarray:
    """(H, W, 3) uint8 -> (view.height, view.width, 3) uint8. Averages where it shrinks; ``FILL`` beside the image."""
    return _show_upright(image, view) if view.upright else _show_tilted(image, view)


def move_boxes(boxes: np.ndarray, view: View) -> np.ndarray:
    """(n, 4) boxes in the image -> (n, 4) in the view, not clipped to it.

    Under a tilt, the box around the ellipse that fills the old box: what the box holds isn't known, and the box
    around its corners grows beyond most of it (Kalra et al., Towards Rotation Invariance in Object Detection, 2021).
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 @ view.matrix[:, :2].T + view.matrix[:, 2]
    halves = np.sqrt(((boxes[:, 2:] - boxes[:, :2]) / 2) ** 2 @ (view.matrix[:, :2] ** 2).T)
    return np.concatenate((centres - halves, centres + halves), axis=1)


def clip_boxes(boxes: np.ndarray, width: float, height: float) -> np.ndarray:
    """(n, 4) boxes, cut off at 0 and at the sides given."""
    return np.clip(boxes, 0, (width, height, width, height))


def visible_share(boxes: np.ndarray, view: View) -> np.ndarray:
    """How much of each moved box lies in the view, (n,) in 0 to 1."""
    return areas(clip_boxes(boxes, view.width, view.height)) / np.maximum(areas(boxes), 1e-12)


def areas(boxes: np.ndarray) -> np.ndarray:
    """(n, 4) boxes -> (n,)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _show_upright(image: np.ndarray, view: View) -> np.ndarray:
    height, width = image.shape[:2]
    scale = np.abs(np.diag(view.matrix))
    mirrored = view.matrix[0, 0] < 0
    offset = view.matrix[:, 2].copy()
    if mirrored:
        offset[0] = view.width - offset[0]
    # where the image comes to lie in the view, and what of the image that shows
    sides = (view.width, view.height)
    first = np.clip(np.round(offset), 0, sides).astype(int)
    last = np.clip(np.round(offset + scale * (width, height)), 0, sides).astype(int)
    left, top = np.maximum((first - offset) / scale, 0).tolist()
    right, bottom = np.minimum((last - offset) / scale, (width, height)).tolist()
    shown = Image.fromarray(image).resize(
        tuple((last - first).tolist()), Image.Resampling.BILINEAR, box=(left, top, right, bottom)
    )
    canvas = np.full((view.height, view.width, 3), FILL, np.uint8)
    canvas[first[1] : last[1], first[0] : last[0]] = np.asarray(shown)
    return np.ascontiguousarray(canvas[:, ::-1]) if mirrored else canvas


def _show_tilted(image: np.ndarray, view: View) -> np.ndarray:
    """OpenCV's warp skips pixels where it shrinks; so PIL shrinks what is needed first, and the warp only turns."""
    height, width = image.shape[:2]
    back = np.linalg.inv(_square(view.matrix))
    corners = back @ np.array([[0, view.width, 0, view.width], [0, 0, view.height, view.height], [1, 1, 1, 1]])
    margin = 2 / math.sqrt(abs(np.linalg.det(view.matrix[:, :2]))) + 2  # what interpolation reaches for
    left, top = np.clip(np.floor(corners[:2].min(axis=1) - margin), 0, (width, height)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners[:2].max(axis=1) + margin), 0, (width, height)).astype(int).tolist()
    part = image[top:bottom, left:right]
    matrix = _square(view.matrix) @ _shift(left, top)
    shrink = min(1.0, math.sqrt(abs(np.linalg.det(view.matrix[:, :2]))))
    if shrink < 1:
        sides = max(1, round((right - left) * shrink)), max(1, round((bottom - top) * shrink))
        matrix = matrix @ _scale((right - left) / sides[0], (bottom - top) / sides[1])
        part = np.asarray(Image.fromarray(part).resize(sides, Image.Resampling.BILINEAR))
    return cv2.warpAffine(
        part,
        between_centres(matrix[:2]),
        (view.width, view.height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=FILL,
    )


def _placed(width: int, height: int, whole: View, zoom: float, along: float, down: float) -> np.ndarray:
    """(3, 3): the image zoomed, and moved by shares of the room that there is (0 to 1)."""
    scale = np.diag(whole.matrix) * zoom
    across, tall = width * scale[0], height * scale[1]
    if zoom < 1:  # whole pixels, so that the image's border is one
        across, tall = max(1, round(across)), max(1, round(tall))
        x, y = round(along * (whole.width - across)), round(down * (whole.height - tall))
        return _shift(x, y) @ _scale(across / width, tall / height)
    return _shift(along * (whole.width - across), down * (whole.height - tall)) @ _scale(*scale)


def _tilt(view: View, degrees: float, shear: float) -> np.ndarray:
    """(3, 3): rotation and shear about a view's centre, both in degrees."""
    angle, slant = math.radians(degrees), math.tan(math.radians(shear))
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    lean = np.array([[1, slant, 0], [0, 1, 0], [0, 0, 1]])
    x, y = view.width / 2, view.height / 2
    return _shift(x, y) @ turn @ lean @ _shift(-x, -y)


def _scale(x: float, y: float) -> np.ndarray:
    return np.diag((float(x), float(y), 1.0))


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def _square(matrix: np.ndarray) -> np.ndarray:
    """(2, 3) -> (3, 3)."""
    return np.vstack((matrix, (0, 0, 1)))
