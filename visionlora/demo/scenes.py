"""Generated pictures of a street as a fixed surveillance camera sees it, by day or by night."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from visionlora.demo import shapes
from visionlora.demo.camera import DAY, NIGHT, Camera, View, expose, normal
from visionlora.demo.shapes import Body, Part
from visionlora.demo.street import ROAD, ground, houses, trees

__all__ = ["CLASSES", "DAY", "NIGHT", "Camera", "Scene", "make_scene", "write_folder"]

CLASSES: tuple[str, ...] = ("bicycle", "bus", "car", "empty", "person", "truck")
FINE = 4  # drawn this many times larger, then averaged: anti-aliasing


@dataclass(frozen=True)
class Scene:
    """One picture: (H, W, 3) uint8 RGB, index into CLASSES, the object's box (x0, y0, x1, y1) in pixels and
    its visible pixels (H, W) bool. An empty scene has no box and an empty mask."""

    image: np.ndarray
    label: int
    box: tuple[float, float, float, float] | None
    mask: np.ndarray


def make_scene(camera: Camera, seed: int, index: int, size: int = 96) -> Scene:
    """Scene ``index`` of the endless series ``seed`` of this camera; ``size`` pixels each way.

    Its class is index modulo len(CLASSES), so that any run of scenes is balanced. The same arguments give the
    same bytes. Raises ValueError for a negative seed or index.
    """
    rng = np.random.default_rng([seed, index, camera.street])
    label = index % len(CLASSES)
    view = View(camera, size * FINE)
    sun = sunlight(rng)
    things = [stand(shapes.clutter(rng), *somewhere(view, "clutter", rng)) for _ in range(rng.integers(0, 4))]
    target = None
    if CLASSES[label] != "empty":
        target = stand(shapes.OBJECTS[CLASSES[label]](rng), *somewhere(view, CLASSES[label], rng))
        things.append(target)
    things.sort(key=lambda body: -distance(view, body))

    image = street(camera, size).copy()
    shade(image, view, things, sun, strength=rng.uniform(0.2, 0.5) * min(1.0, camera.light + 0.2))
    canvas = ImageDraw.Draw(image)
    covered = Image.new("L", image.size)
    stencil = ImageDraw.Draw(covered)
    for body in things:
        for part in visible(view, body):
            toward = 0.4 if part.radius else max(0.0, float(normal(part.points) @ sun))
            view.draw(canvas, part, shapes.tinted(part.colour, 0.66 + 0.42 * toward))
            view.draw(stencil, part, 255 if body is target else 0)
    mask = np.asarray(covered.reduce(FINE)) > 127

    albedo = np.asarray(image.reduce(FINE), dtype=np.float64)
    light = camera.light * rng.uniform(0.82, 1.12) + camera.lamp * lamp_pool(camera, size)
    glow = np.zeros((size, size))
    if camera.glare:
        beams, blooms = headlight_glare(camera, target, size, rng)
        light, glow = light + camera.glare * beams, 255 * camera.glare * blooms
    radiance = albedo * light[:, :, None] + glow[:, :, None] * np.array([1.0, 0.97, 0.9])
    return Scene(expose(camera, radiance, rng), label, bounds(mask), mask)


def write_folder(root: Path, camera: Camera, n_per_class: int, seed: int) -> None:
    """Write scenes 0 to n_per_class * len(CLASSES) of a series as root/<class>/<index>.png."""
    for index in range(n_per_class * len(CLASSES)):
        scene = make_scene(camera, seed, index)
        path = root / CLASSES[scene.label] / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(path)


def sunlight(rng: np.random.Generator) -> np.ndarray:
    """Unit vector towards the light; (3,)."""
    azimuth, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(35, 65))
    return np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])


def somewhere(view: View, kind: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """Where such a thing may stand and which way it looks: x, y in metres, radians from +x."""
    kerb, far = ROAD
    if kind == "clutter":
        y = rng.choice([rng.uniform(-3.0, -0.6), rng.uniform(far + 0.4, far + 2.5)])
        return view.across(rng.uniform(0.0, 1.0), y), y, rng.uniform(0, 2 * np.pi)
    if kind == "person":
        y = rng.uniform(-3.5, far - 1.5)
        return view.across(rng.uniform(0.15, 0.8), y), y, rng.uniform(0, 2 * np.pi)
    near_lane = rng.random() < 0.5
    heading = (0.0 if near_lane else np.pi) + rng.normal(0, 0.12)
    if kind == "bicycle":
        y = rng.uniform(kerb - 2.0, kerb + 2.5) if near_lane else rng.uniform(far - 2.5, far)
        return view.across(rng.uniform(0.15, 0.85), y), y, heading + rng.normal(0, 0.3)
    y = (kerb + far) / 2 + (-1.0 if near_lane else 1.0) * rng.uniform(1.6, 2.0)
    return view.across(rng.uniform(0.25, 0.75), y), y, heading


def stand(body: Body, x: float, y: float, heading: float) -> Body:
    """The object moved to (x, y) and turned."""
    c, s = np.cos(heading), np.sin(heading)
    turn, move = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]]), np.array([x, y, 0.0])
    groups = [[Part(part.points @ turn + move, part.colour, part.radius) for part in group] for group in body.groups]
    return Body(groups, body.headlights @ turn + move)


def distance(view: View, body: Body) -> float:
    return float(np.linalg.norm(np.concatenate([p.points for g in body.groups for p in g]).mean(0) - view.position))


def visible(view: View, body: Body) -> list[Part]:
    """The parts that face the camera, in the order to draw them."""
    groups = sorted(body.groups, key=lambda group: -distance(view, Body([group], body.headlights)))
    return [part for group in groups for part in group if view.faces(part)]


def shade(image: Image.Image, view: View, bodies: list[Body], sun: np.ndarray, strength: float) -> None:
    """Darken the ground where bodies keep the light away."""
    shadow = Image.new("L", image.size)
    canvas = ImageDraw.Draw(shadow)
    for toward in (sun, np.array([0.0, 0.0, 1.0])):  # the sun's shadow, and the dark right under a body
        for part in (part for body in bodies for group in body.groups for part in group):
            fallen = part.points - part.points[:, 2:] * toward / toward[2]
            view.draw(canvas, Part(fallen, part.colour, part.radius), round(255 * strength))
    image.paste((18, 20, 28), (0, 0), shadow.filter(ImageFilter.BoxBlur(FINE)))


@lru_cache(maxsize=8)
def lamp_pool(camera: Camera, size: int) -> np.ndarray:
    """The light of the street lamp on the ground, (size, size), 0 to 1."""
    view = View(camera, size)
    x = view.across(0.45, 3.0)
    pool = Image.new("L", (size, size))
    turn = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    rim = np.stack([x + 7 * np.cos(turn), 3 + 5 * np.sin(turn), 0 * turn], axis=1)
    view.draw(ImageDraw.Draw(pool), Part(rim, shapes.LAMP), 255)
    return np.asarray(pool.filter(ImageFilter.GaussianBlur(size * 0.14)), dtype=np.float64) / 255


def headlight_glare(
    camera: Camera, target: Body | None, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Light that headlights throw on the road, and light that they throw into the lens; each (size, size)."""
    view = View(camera, size)
    beams = Image.new("L", (size, size))
    blooms = np.zeros((size, size))
    rows, columns = np.mgrid[:size, :size]
    sources: list[tuple[float, float, float]] = []  # column, row, strength
    if target is not None and len(target.headlights):
        lamps = target.headlights
        power = 0.5 if len(lamps) == 1 else 1.0  # a bicycle has one, and a weak one
        middle = np.concatenate([p.points for p in target.groups[0]]).mean(0)
        ahead = (lamps.mean(0) - middle) * [1, 1, 0]
        ahead /= max(float(np.linalg.norm(ahead)), 1e-9)
        side = np.array([-ahead[1], ahead[0], 0.0])
        start = lamps.mean(0) * [1, 1, 0] + ahead * 0.3
        cone = np.array(
            [
                start - side * 0.8,
                start + side * 0.8,
                start + ahead * 6 + side * 2,
                start + ahead * 6 - side * 2,
            ]
        )
        view.draw(ImageDraw.Draw(beams), Part(cone, shapes.LAMP), round(200 * power))
        to_lens = view.position - lamps.mean(0)
        facing = max(0.0, float(ahead @ to_lens / np.linalg.norm(to_lens)))
        sources = [(x, y, power * (0.25 + 0.75 * facing)) for x, y in view.pixels(view.local(lamps))]
    if rng.random() < 0.25:  # another car's, just outside the picture
        sources.append((rng.choice([-0.05, 1.05]) * size, rng.uniform(0.35, 0.8) * size, 1.0))
    for x, y, strength in sources:
        apart = ((columns - x) ** 2 + (rows - y) ** 2) / (size / 96) ** 2
        blooms += strength * (0.9 * np.exp(-apart / 8) + 0.3 * np.exp(-apart / 200))
    return np.asarray(beams.filter(ImageFilter.GaussianBlur(size / 40)), dtype=np.float64) / 255, blooms


def bounds(mask: np.ndarray) -> tuple[float, float, float, float] | None:
    """The box (x0, y0, x1, y1) around the true pixels, x1 and y1 exclusive, or None."""
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


@lru_cache(maxsize=8)
def street(camera: Camera, size: int) -> Image.Image:
    """The empty street in full light, FINE times too large. Shared: copy it before drawing."""
    rng = np.random.default_rng(camera.street)
    view = View(camera, size * FINE)
    side = size * FINE
    top, low = np.array([112.0, 158.0, 214.0]), np.array([214.0, 226.0, 234.0])
    fade = np.linspace(0, 1.8, side).clip(0, 1)[:, None, None]
    sky = np.broadcast_to(top + (low - top) * fade, (side, side, 3)).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(sky))
    canvas = ImageDraw.Draw(image)
    for part in [*ground(rng), *houses(rng), *trees(rng)]:
        view.draw(canvas, part, part.colour)
    coarse = rng.normal(0, 5, (24, 24)).astype(np.float32)
    grain = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    fine = rng.normal(0, 7, (side // 2, side // 2)).repeat(2, 0).repeat(2, 1)
    textured = np.asarray(image, dtype=np.float32) + (grain + fine)[:, :, None]
    return Image.fromarray(textured.clip(0, 255).astype(np.uint8))
