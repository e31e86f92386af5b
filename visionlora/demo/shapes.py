"""Street objects as coloured polygons and strokes in metres.

Frame of an object: x forward, y to its left, z up, origin on the ground under its middle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]
Point = tuple[float, float]

GLASS: Colour = (52, 66, 82)
TYRE: Colour = (28, 28, 30)
RIM: Colour = (150, 152, 156)
LAMP: Colour = (255, 246, 214)
TAIL: Colour = (176, 24, 22)
PAINTS: tuple[Colour, ...] = (
    (178, 34, 38),
    (36, 74, 148),
    (226, 228, 230),
    (40, 42, 46),
    (142, 146, 150),
    (212, 170, 46),
    (44, 112, 78),
    (196, 104, 40),
)
SKINS: tuple[Colour, ...] = ((236, 200, 172), (198, 150, 116), (134, 92, 66))


@dataclass(frozen=True)
class Part:
    """A polygon, or with ``radius`` (metres) a line with round ends; ``points`` is (n, 3) in metres.

    A polygon is seen only from the side where its points run counter-clockwise.
    """

    points: np.ndarray
    colour: Colour
    radius: float = 0.0


@dataclass(frozen=True)
class Body:
    """An object: groups of parts, farther groups drawn first; headlights (n, 3) in metres."""

    groups: list[list[Part]]
    headlights: np.ndarray


def polygon(points: list[tuple[float, float, float]], colour: Colour) -> Part:
    return Part(np.array(points, dtype=float), colour)


def stroke(points: list[tuple[float, float, float]], radius: float, colour: Colour) -> Part:
    return Part(np.array(points, dtype=float), colour, radius)


def prism(profile: list[Point], width: float, colour: Colour) -> list[Part]:
    """A side view (x, z), counter-clockwise as seen from the right, stretched over ``width`` along y."""
    y = width / 2
    parts = [
        polygon([(x, -y, z) for x, z in profile], colour),
        polygon([(x, y, z) for x, z in reversed(profile)], colour),
    ]
    for (x0, z0), (x1, z1) in zip(profile, profile[1:] + profile[:1], strict=True):
        parts.append(polygon([(x0, -y, z0), (x0, y, z0), (x1, y, z1), (x1, -y, z1)], colour))
    return parts


def box(x0: float, x1: float, z0: float, z1: float, width: float, colour: Colour) -> list[Part]:
    return prism([(x0, z0), (x1, z0), (x1, z1), (x0, z1)], width, colour)


def on_sides(profile: list[Point], width: float, colour: Colour) -> list[Part]:
    """A flat shape (x, z) on both sides of a body of that width: a window, a door."""
    return prism(profile, width + 0.02, colour)[:2]


def on_end(x: float, y: float, z0: float, z1: float, half: float, colour: Colour) -> Part:
    """A flat rectangle on the front (x > 0) or on the back (x < 0) of a body."""
    corners = [(x, y - half, z0), (x, y + half, z0), (x, y + half, z1), (x, y - half, z1)]
    return polygon(corners if x > 0 else corners[::-1], colour)


def wheels(xs: list[float], radius: float, width: float) -> list[Part]:
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    parts = []
    for x in xs:
        for r, colour in ((radius, TYRE), (radius * 0.55, RIM)):
            circle = [(x + r * float(np.cos(t)), radius + r * float(np.sin(t))) for t in turn]
            parts += on_sides(circle, width, colour)
    return parts


def lamps(front: float, back: float, z: float, width: float) -> list[Part]:
    y = width / 2 - 0.28
    return [on_end(front, s * y, z, z + 0.2, 0.17, LAMP) for s in (-1, 1)] + [
        on_end(back, s * y, z, z + 0.22, 0.15, TAIL) for s in (-1, 1)
    ]


def headlights(front: float, z: float, width: float) -> np.ndarray:
    y = width / 2 - 0.28
    return np.array([(front, -y, z), (front, y, z)])


def pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    """One of the colours, a little off."""
    colour = np.array(colours[rng.integers(len(colours))]) + rng.integers(-18, 19, 3)
    r, g, b = np.clip(colour, 0, 255).tolist()
    return r, g, b


def tinted(colour: Colour, factor: float) -> Colour:
    r, g, b = (min(255, int(c * factor)) for c in colour)
    return r, g, b


def car(rng: np.random.Generator) -> Body:
    paint = pick(rng, PAINTS)
    half, width = rng.uniform(1.9, 2.2), 1.8
    top, waist = rng.uniform(1.4, 1.6), 0.88
    back = -half + rng.choice([0.1, 0.75])  # hatchback or saloon
    body = prism([(-half, 0.28), (half, 0.28), (half, 0.68), (half - 1.0, waist), (-half, waist)], width, paint)
    cabin = prism([(back, waist), (half - 1.0, waist), (half - 1.75, top), (back + 0.4, top)], width - 0.14, GLASS)
    roof = prism(
        [
            (back + 0.36, top - 0.05),
            (half - 1.7, top - 0.05),
            (half - 1.78, top + 0.03),
            (back + 0.45, top + 0.03),
        ],
        width - 0.12,
        paint,
    )
    pillar = on_sides([(-0.2, waist), (-0.08, waist), (-0.08, top), (-0.2, top)], width - 0.14, paint)
    trim = [on_end(s * (half + 0.01), 0, 0.3, 0.42, width / 2, TYRE) for s in (-1, 1)]
    rest = wheels([-half + 0.75, half - 0.8], 0.34, width) + trim + lamps(half + 0.02, -half - 0.02, 0.5, width)
    return Body([body + cabin + roof + pillar + rest], headlights(half, 0.6, width))


def bus(rng: np.random.Generator) -> Body:
    paint, band = pick(rng, PAINTS), pick(rng, PAINTS)
    half, width, top = rng.uniform(3.5, 4.0), 2.3, rng.uniform(2.8, 3.1)
    parts = box(-half, half, 0.35, top, width, paint)
    parts += on_sides([(-half, 0.75), (half, 0.75), (half, 1.05), (-half, 1.05)], width, band)
    edges = np.linspace(-half + 0.15, half - 0.1, 7)
    for x0, x1 in zip(edges[:-1].tolist(), (edges[1:] - 0.14).tolist(), strict=True):
        parts += on_sides([(x0, 1.3), (x1, 1.3), (x1, top - 0.4), (x0, top - 0.4)], width, GLASS)
    door = (half - 1.15, half - 0.3)
    parts += on_sides([(door[0], 0.4), (door[1], 0.4), (door[1], 2.4), (door[0], 2.4)], width, (70, 84, 98))
    parts.append(on_end(half + 0.01, 0, 1.15, top - 0.45, width / 2 - 0.12, GLASS))
    parts.append(on_end(half + 0.01, 0, top - 0.36, top - 0.1, 0.7, (240, 190, 70)))  # destination sign
    parts.append(on_end(-half - 0.01, 0, 1.5, top - 0.4, width / 2 - 0.3, GLASS))
    parts += wheels([-half + 1.4, half - 1.7], 0.46, width) + lamps(half + 0.02, -half - 0.02, 0.6, width)
    return Body([parts], headlights(half, 0.7, width))


def truck(rng: np.random.Generator) -> Body:
    paint, load = pick(rng, PAINTS), pick(rng, (*PAINTS, (214, 214, 208), (200, 200, 196)))
    half, width, top = rng.uniform(3.0, 3.5), 2.2, rng.uniform(2.6, 3.1)
    split = half - 1.75
    rear = box(-half, split, 0.45, 0.75, width - 0.5, TYRE)
    if rng.random() < 0.7:
        rear += box(-half, split - 0.2, 0.75, top, width, load)
        for x in np.linspace(-half + 0.5, split - 0.7, 5).tolist():  # ribs of the box
            rib = [(x, 0.8), (x + 0.07, 0.8), (x + 0.07, top - 0.1), (x, top - 0.1)]
            rear += on_sides(rib, width, tinted(load, 0.82))
    else:  # open bed with a heap on it
        rear += prism(
            [(-half + 0.2, 1.2), (split - 0.4, 1.2), (split - 1.2, 1.9), (-half + 1.0, 2.0)],
            width - 0.5,
            (128, 102, 72),
        )
        rear += box(-half, split - 0.2, 0.75, 1.35, width, load)
    rear += wheels([-half + 0.7, -half + 1.65], 0.46, width)
    cab = prism([(split, 0.4), (half, 0.4), (half, 1.3), (half - 0.35, 2.25), (split, 2.25)], width - 0.05, paint)
    cab += on_sides(
        [(half - 1.1, 1.35), (half - 0.15, 1.35), (half - 0.45, 2.1), (half - 1.1, 2.1)], width - 0.05, GLASS
    )
    y = width / 2 - 0.15
    cab.append(polygon([(half, -y, 1.34), (half, y, 1.34), (half - 0.3, y, 2.15), (half - 0.3, -y, 2.15)], GLASS))
    cab += wheels([half - 0.85], 0.46, width - 0.05) + lamps(half + 0.02, -half - 0.02, 0.6, width)
    return Body([rear, cab], headlights(half, 0.7, width))


def figure(
    hip: Point, neck: Point, feet: tuple[Point, Point], hands: tuple[Point, Point], rng: np.random.Generator
) -> list[Part]:
    """A person from the side: all points as (x, z), feet and hands right then left."""
    coat, skin = pick(rng, PAINTS), pick(rng, SKINS)
    trousers = pick(rng, ((40, 46, 66), (60, 58, 56), (92, 82, 68)))
    hair = pick(rng, ((40, 30, 26), (96, 66, 40), (170, 140, 96)))
    (hx, hz), (nx, nz) = hip, neck
    parts = []
    for y, (x, z) in zip((-0.1, 0.1), feet, strict=True):
        knee = (hx + (x - hx) * 0.5 + 0.09, y, (hz + z) / 2 + 0.05)
        parts.append(stroke([(hx, y, hz), knee, (x, y, z)], 0.085, trousers))
        parts.append(stroke([(x, y, z), (x + 0.14, y, z)], 0.07, TYRE))
    parts.append(stroke([(hx, 0, hz), ((hx + nx) / 2, 0, (hz + nz) / 2), (nx, 0, nz - 0.1)], 0.2, coat))
    for y, (x, z) in zip((-0.26, 0.26), hands, strict=True):
        elbow = ((nx + x) / 2 - 0.06, y * 1.1, (nz + z) / 2 - 0.08)
        parts.append(stroke([(nx, y * 0.85, nz - 0.08), elbow, (x, y, z)], 0.065, coat))
        parts.append(stroke([(x, y, z)], 0.07, skin))
    parts.append(stroke([(nx + 0.03, 0, nz + 0.16)], 0.15, skin))
    parts.append(stroke([(nx - 0.01, 0, nz + 0.22)], 0.14, hair))
    return parts


def person(rng: np.random.Generator) -> Body:
    neck, step = rng.uniform(1.35, 1.55), rng.uniform(0.06, 0.34)
    feet = ((step, 0.06), (-step, 0.06))
    hands = ((-step * 0.8, neck - 0.62), (step * 0.8, neck - 0.62))
    parts = figure((0, neck * 0.56), (0.03, neck), feet, hands, rng)
    if rng.random() < 0.3:
        parts.insert(5, stroke([(-0.22, 0, neck - 0.2), (-0.22, 0, neck - 0.45)], 0.13, pick(rng, PAINTS)))
    return Body([parts], np.zeros((0, 3)))


def bicycle(rng: np.random.Generator) -> Body:
    paint = pick(rng, PAINTS)
    saddle, crank, head, back = (-0.25, 0.0, 0.95), (-0.05, 0.0, 0.4), (0.45, 0.0, 0.95), (-0.62, 0.0, 0.38)
    turn = np.linspace(0, 2 * np.pi, 24).tolist()
    cycle = [
        stroke([(x + 0.36 * float(np.cos(t)), 0, 0.38 + 0.36 * float(np.sin(t))) for t in turn], 0.05, TYRE)
        for x in (-0.62, 0.62)
    ]
    cycle.append(stroke([back, saddle, crank, head, saddle, back, crank], 0.045, paint))
    cycle.append(stroke([(0.62, 0, 0.38), head, (0.4, 0, 1.1)], 0.045, paint))
    cycle.append(stroke([(0.42, -0.25, 1.1), (0.42, 0.25, 1.1)], 0.04, TYRE))
    pedal = rng.uniform(0, 2 * np.pi)
    dx, dz = 0.16 * float(np.cos(pedal)), 0.16 * float(np.sin(pedal))
    feet = ((-0.05 + dx, 0.4 + dz), (-0.05 - dx, 0.4 - dz))
    rider = figure((-0.25, 1.02), (0.12, 1.52), feet, ((0.4, 1.12), (0.4, 1.12)), rng)
    return Body([cycle + rider], np.array([(0.5, 0.0, 0.95)]))


def clutter(rng: np.random.Generator) -> Body:
    """What stands about in any street: a bin, a crate, a cone or a bush, at most a metre high."""
    kind = rng.integers(4)
    if kind == 0:
        paint = pick(rng, ((52, 86, 60), (70, 74, 80), (44, 66, 110)))
        parts = box(-0.3, 0.3, 0.05, 0.9, 0.6, paint) + box(-0.34, 0.34, 0.9, 1.0, 0.68, tinted(paint, 0.7))
    elif kind == 1:
        side = rng.uniform(0.4, 0.8)
        parts = box(-side / 2, side / 2, 0, side, side, pick(rng, ((176, 136, 92), (150, 110, 70))))
    elif kind == 2:
        parts = box(-0.22, 0.22, 0, 0.06, 0.44, (46, 46, 48))
        for z, r, colour in (
            (0.1, 0.15, (222, 92, 36)),
            (0.32, 0.11, (236, 232, 226)),
            (0.5, 0.08, (222, 92, 36)),
        ):
            parts.append(stroke([(0, 0, z), (0, 0, z + 0.16)], r, colour))
    else:
        blobs = rng.uniform((-0.5, -0.3, 0.2), (0.5, 0.3, 0.7), (9, 3)).tolist()
        parts = [stroke([(x, y, z)], 0.26, tinted((70, 104, 54), 0.7 + 0.6 * z)) for x, y, z in blobs]
    return Body([parts], np.zeros((0, 3)))


OBJECTS: dict[str, Callable[[np.random.Generator], Body]] = {
    "bicycle": bicycle,
    "bus": bus,
    "car": car,
    "person": person,
    "truck": truck,
}
