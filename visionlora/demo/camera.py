"""A fixed camera: where it hangs, how it projects metres to pixels, what its sensor makes of the light."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from visionlora.demo.shapes import Colour, Part


@dataclass(frozen=True)
class Camera:
    """Where a fixed camera hangs, which street it sees, and what its sensor makes of the light."""

    name: str
    height: float  # metres above the road
    distance: float  # metres before the near kerb
    yaw: float  # degrees to the right of straight across the road
    pitch: float  # degrees downward
    roll: float  # degrees
    zoom: float  # focal length in image widths
    street: int  # seed of houses, trees and markings
    light: float = 1.0  # of the sky, 1 by day
    lamp: float = 0.0  # of the street lamp's pool
    glare: float = 0.0  # of headlights
    saturation: float = 1.0  # 0 is the grey of infrared
    blur: float = 0.0  # sigma, pixels at 96
    noise: float = 2.0  # sigma, grey levels
    quality: int = 92  # JPEG


DAY = Camera("day", height=4.5, distance=8.0, yaw=-6.0, pitch=14.0, roll=0.0, zoom=1.05, street=3)
NIGHT = Camera(
    "night",
    height=5.5,
    distance=8.0,
    yaw=22.0,
    pitch=18.0,
    roll=-2.5,
    zoom=1.05,
    street=8,
    light=0.62,
    lamp=0.4,
    glare=0.7,
    saturation=0.15,
    blur=0.5,
    noise=10.0,
    quality=50,
)


class View:
    """The pinhole projection of one camera on a square picture of ``size`` pixels."""

    def __init__(self, camera: Camera, size: int) -> None:
        yaw, pitch, roll = np.radians([camera.yaw, camera.pitch, camera.roll])
        ahead = np.array([np.sin(yaw), np.cos(yaw), 0.0])
        right, up = np.array([np.cos(yaw), -np.sin(yaw), 0.0]), np.array([0.0, 0.0, 1.0])
        forward = np.cos(pitch) * ahead - np.sin(pitch) * up
        down = -np.sin(pitch) * ahead - np.cos(pitch) * up
        self.axes = np.stack(
            [np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right, forward]
        )
        self.position = np.array([0.0, -camera.distance, camera.height])
        self.focal = camera.zoom * size
        self.size = size
        self.yaw = float(yaw)

    def local(self, points: np.ndarray) -> np.ndarray:
        """World (n, 3) to right, down, forward in metres."""
        return (points - self.position) @ self.axes.T

    def pixels(self, local: np.ndarray) -> list[tuple[float, float]]:
        where = self.size / 2 + self.focal * local[:, :2] / local[:, 2:]
        return [(x, y) for x, y in where.tolist()]

    def across(self, u: float, y: float) -> float:
        """The x on the line at depth y (metres) that column u (0 left edge, 1 right edge) shows."""
        angle = self.yaw + np.arctan((u - 0.5) * self.size / self.focal)
        return float(self.position[0] + np.tan(angle) * (y - self.position[1]))

    def draw(self, canvas: ImageDraw.ImageDraw, part: Part, fill: Colour | int) -> None:
        local = self.local(part.points)
        if part.radius:
            widths = np.maximum(2 * part.radius * self.focal / local[:, 2], 1.0)
            at = self.pixels(local)
            if len(at) > 1:
                canvas.line(at, fill=fill, width=max(1, round(float(widths.mean()))), joint="curve")
            for (x, y), w in zip(at, (widths / 2).tolist(), strict=True):
                canvas.ellipse([x - w, y - w, x + w, y + w], fill=fill)
            return
        local = clip_near(local)
        if len(local) > 2:
            canvas.polygon(self.pixels(local), fill=fill)

    def faces(self, part: Part) -> bool:
        """Whether a polygon turns its front to the camera; a stroke always does."""
        return bool(part.radius) or float(normal(part.points) @ (self.position - part.points[0])) > 0


def clip_near(local: np.ndarray, near: float = 0.5) -> np.ndarray:
    """Cut away what lies behind the lens, or (k, 3) with k = 0."""
    kept = []
    for a, b in zip(local, np.roll(local, -1, axis=0), strict=True):
        if a[2] > near:
            kept.append(a)
        if (a[2] > near) != (b[2] > near):
            kept.append(a + (b - a) * (near - a[2]) / (b[2] - a[2]))
    return np.array(kept).reshape(-1, 3)


def normal(points: np.ndarray) -> np.ndarray:
    """Unit normal of a polygon, by Newell's sum; (3,)."""
    total = np.cross(points, np.roll(points, -1, axis=0)).sum(0)
    return total / max(float(np.linalg.norm(total)), 1e-9)


def expose(camera: Camera, radiance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What the camera stores: radiance (H, W, 3), 255 being white, to (H, W, 3) uint8 RGB."""
    size = radiance.shape[0]
    grey = radiance @ np.array([0.35, 0.5, 0.15])
    colour = camera.saturation * radiance + (1 - camera.saturation) * grey[:, :, None]
    sharp = Image.fromarray(colour.clip(0, 255).astype(np.uint8))
    soft = np.asarray(sharp.filter(ImageFilter.GaussianBlur(camera.blur * size / 96)), dtype=np.float64)
    noisy = soft + rng.normal(0, camera.noise, (size, size, 1)) + rng.normal(0, camera.noise / 3, soft.shape)
    stored = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8)).save(stored, "JPEG", quality=camera.quality)
    return np.array(Image.open(stored).convert("RGB"))
