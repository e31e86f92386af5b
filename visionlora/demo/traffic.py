"""Successive frames of the generated street: things that pass, for what needs footage rather than scenes."""

from __future__ import annotations

import numpy as np
from PIL import ImageDraw

from visionlora.demo import shapes
from visionlora.demo.camera import Camera, View, expose, normal
from visionlora.demo.scenes import FINE, distance, shade, stand, street, sunlight, visible
from visionlora.demo.street import ROAD

_PASSING = (("car", -1.8, 0.0, 3.0), ("person", -4.3, np.pi, -1.0))
"""What passes: its class, metres from the road's middle, radians from +x, metres per second."""


def traffic_frame(camera: Camera, seed: int, seconds: float, size: int = 96) -> np.ndarray:
    """(size, size, 3) uint8 RGB: what the camera sees so many seconds into a film in which a car and somebody pass."""
    rng = np.random.default_rng([seed, camera.street])
    view, sun, middle = View(camera, size * FINE), sunlight(rng), sum(ROAD) / 2
    things = []
    for kind, aside, heading, speed in _PASSING:
        y = middle + aside
        x = view.across(0.15 if speed > 0 else 0.85, y) + speed * seconds
        things.append(stand(shapes.OBJECTS[kind](rng), x, y, heading))
    things.sort(key=lambda body: -distance(view, body))
    image = street(camera, size).copy()
    shade(image, view, things, sun, strength=0.35)
    canvas = ImageDraw.Draw(image)
    for part in (part for body in things for part in visible(view, body)):
        toward = 0.4 if part.radius else max(0.0, float(normal(part.points) @ sun))
        view.draw(canvas, part, shapes.tinted(part.colour, 0.66 + 0.42 * toward))
    albedo = np.asarray(image.reduce(FINE), dtype=np.float64)
    grain = np.random.default_rng([seed, camera.street, round(1000 * seconds)])
    return expose(camera, albedo * camera.light, grain)
