"""A fixed camera over a generated street: one background, one thing that moves, and the sensor's grain."""

import numpy as np

WIDTH, HEIGHT = 192, 128


def street_frame(number: int, generator: np.random.Generator) -> np.ndarray:
    """(128, 192, 3) uint8 RGB: windows above, paving below, and a car somewhere."""
    image = np.empty((HEIGHT, WIDTH, 3), np.float64)
    image[:] = np.linspace(150, 90, HEIGHT)[:, None, None] * np.array([1.0, 0.97, 0.9])
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image[(rows < 70) & (rows % 18 < 8) & (columns % 24 < 10)] = (60, 66, 80)
    image[(rows >= 70) & ((rows // 6 + columns // 9) % 2 == 0)] *= 0.8
    image[20:60, 130:150] = (140, 80, 60)
    left = number * 7 % (WIDTH - 30)
    image[90:106, left : left + 30] = (40, 60, 120)
    light = 1 + 0.04 * np.sin(number / 9)  # clouds
    noisy = image * light + generator.normal(0, 2, image.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)
