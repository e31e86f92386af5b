"""What befalls a camera, on (H, W, 3) uint8 RGB pictures: the same for all frames of a camera."""

from collections.abc import Callable

import cv2
import numpy as np

Corruption = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def night(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A fifth of the light, little colour, and the sensor's noise."""
    grey = image.mean(axis=2, keepdims=True)
    dark = 0.2 * (0.4 * image + 0.6 * grey)
    return _bytes(dark + generator.normal(0, 4, image.shape))


def fog(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Grey, the more the higher in the picture."""
    del generator
    share = np.linspace(0.75, 0.4, image.shape[0])[:, None, None]
    return _bytes(image * (1 - share) + 200 * share)


def noise(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A deviation of 20."""
    return _bytes(image + generator.normal(0, 20, image.shape))


def blur(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A lens out of focus: a Gaussian of 1/200 of the longer side."""
    del generator
    return cv2.GaussianBlur(image, (0, 0), max(image.shape[:2]) / 200)


def shifted(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The camera was turned by a fifth of the picture; what comes in is the mirrored rest."""
    del generator
    dx, dy = image.shape[1] // 5, image.shape[0] // 10
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    size = (image.shape[1], image.shape[0])
    return cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REFLECT)


def blocked(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A leaf before two fifths of the lens."""
    del generator
    found = image.copy()
    width = round(0.4 * image.shape[1])
    found[:, :width] = (60, 70, 50)
    return found


def tinted(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A white balance that has gone astray."""
    del generator
    return _bytes(image * np.array([1.15, 1.0, 0.8]))


CORRUPTIONS: dict[str, Corruption] = {
    "night": night,
    "fog": fog,
    "noise": noise,
    "blur": blur,
    "shifted": shifted,
    "blocked": blocked,
    "tinted": tinted,
}


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
