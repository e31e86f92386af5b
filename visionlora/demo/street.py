"""The street without traffic, in metres: x along the road, y away from the camera, z up.

The road lies between y = 0 and y = 7, pavements on both sides, houses behind the far one.
"""

from __future__ import annotations

import numpy as np

from visionlora.demo.shapes import Colour, Part, pick, polygon, stroke, tinted

ROAD = (0.0, 7.0)


def flat(x0: float, x1: float, y0: float, y1: float, colour: Colour, z: float = 0.0) -> Part:
    return polygon([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], colour)


def wall(x0: float, x1: float, z0: float, z1: float, colour: Colour, y: float = 11.0) -> Part:
    return polygon([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)], colour)


def ground(rng: np.random.Generator) -> list[Part]:
    far = 90.0
    parts = [flat(-far, far, -12, 60, (118, 128, 92)), flat(-far, far, -12, 11, (168, 163, 154))]
    for x in np.arange(-40, 60, 1.5).tolist():  # joints of the paving
        parts += [flat(x, x + 0.05, -12, 0, (140, 136, 128)), flat(x, x + 0.05, 7, 11, (148, 143, 135))]
    parts += [flat(-far, far, y, y + 0.06, (144, 139, 131)) for y in (-4.5, -3.0, -1.5, 9.0)]
    parts += [flat(-far, far, 0, 7, (92, 93, 97)), flat(-far, far, -0.3, 0, (196, 193, 186))]
    parts += [flat(-far, far, 7, 7.3, (202, 199, 192))]
    for x in np.arange(-60, 80, 4.0).tolist():
        parts.append(flat(x, x + 2.0, 3.42, 3.58, (226, 224, 214)))
    crossing = rng.uniform(-5, 1) if rng.random() < 0.5 else rng.uniform(6, 9)
    for y in np.arange(0.4, 6.6, 0.95).tolist():
        parts.append(flat(crossing, crossing + 2.6, y, y + 0.5, (218, 217, 210)))
    patch = rng.uniform(-6, 10)
    return [*parts, flat(patch, patch + 3.2, 0.6, 2.4, (80, 81, 85))]


def houses(rng: np.random.Generator) -> list[Part]:
    plaster = (
        (186, 132, 104),
        (206, 190, 160),
        (158, 152, 148),
        (172, 104, 84),
        (190, 198, 200),
        (214, 200, 142),
    )
    parts, x = [], -60.0
    while x < 80:
        width, floors = rng.uniform(5, 9), int(rng.integers(2, 4))
        height, colour = floors * 2.6 + 0.6, pick(rng, plaster)
        parts.append(wall(x, x + width, 0, height, colour))
        parts.append(wall(x, x + width, height - 0.3, height, tinted(colour, 0.7)))
        parts.append(wall(x, x + width, 0, 0.5, tinted(colour, 0.75)))
        n = int(width // 1.9)
        for i in range(n):
            left = x + (i + 0.5) * width / n - 0.5
            for floor in range(floors):
                z = floor * 2.6 + 0.9
                if floor == 0 and i == n // 2:
                    parts.append(wall(left, left + 1.0, 0, 2.1, (86, 58, 44)))
                    continue
                parts.append(wall(left - 0.1, left + 1.1, z - 0.1, z + 1.4, (232, 228, 218)))
                parts.append(wall(left, left + 1.0, z, z + 1.3, tinted((78, 92, 108), rng.uniform(0.7, 1.3))))
        x += width + (rng.uniform(1, 4) if rng.random() < 0.3 else 0.0)
    return parts


def trees(rng: np.random.Generator) -> list[Part]:
    parts = []
    for x in np.arange(-30, 50, 6.5).tolist():
        x += rng.uniform(-1.5, 1.5)
        parts.append(flat(x - 1.1, x + 1.3, 8.3, 9.3, (122, 119, 112)))
        parts.append(stroke([(x, 8.8, 0), (x + 0.1, 8.8, 2.6)], 0.12, (84, 64, 48)))
        for _ in range(14):
            dx, dz = rng.uniform(-0.9, 0.9), rng.uniform(-0.7, 0.9)
            green = tinted((74, 112, 58), rng.uniform(0.7, 1.25))
            parts.append(stroke([(x + dx, 8.8 + rng.uniform(-0.5, 0.5), 3.3 + dz)], rng.uniform(0.4, 0.65), green))
    pole = rng.uniform(-6, 0)
    return [*parts, stroke([(pole, 7.6, 0), (pole, 7.6, 6.5), (pole, 6.2, 6.8)], 0.08, (98, 102, 106))]
