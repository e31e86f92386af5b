"""Discs and triangles with their masks, as polygons and as run lengths, for tests of instance segmentation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco_masks
from PIL import Image, ImageDraw

SHAPES = ("disc", "triangle")
SIDE = 96


def make_shapes(root: Path, count: int, seed: int = 0) -> Path:
    """root/shapes.json over ``count`` images of one to three bright shapes each; its path.

    Every other object's mask is a polygon, the others are compressed run lengths.
    """
    generator = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        picture = Image.fromarray(generator.normal(90, 12, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8))
        quarters = generator.permutation(4)[: 1 + number % 3]
        for quarter in quarters.tolist():
            kind, radius = int(generator.integers(2)), int(generator.integers(12, 20))
            x, y = (48 * place + int(generator.integers(radius, 49 - radius)) for place in divmod(quarter, 2))
            ring = _ring(kind, x, y, radius)
            colour = tuple(int(value) for value in generator.integers(170, 255, 3))
            ImageDraw.Draw(picture).polygon(ring, fill=colour)
            corners = np.array(ring)
            low, high = corners.min(axis=0), corners.max(axis=0)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": kind + 1,
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                    "segmentation": _mask(ring, as_polygon=len(annotations) % 2 == 0),
                    "iscrowd": 0,
                }
            )
        picture.save(root / f"{number:03}.png")
        images.append({"id": number, "file_name": f"{number:03}.png", "width": SIDE, "height": SIDE})
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(SHAPES)]
    path = root / "shapes.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def _ring(kind: int, x: int, y: int, radius: int) -> list[tuple[float, float]]:
    corners, start = (24, 0.0) if kind == 0 else (3, np.pi / 6)
    angles = start + 2 * np.pi * np.arange(corners) / corners
    return [(float(x + radius * np.cos(angle)), float(y + radius * np.sin(angle))) for angle in angles]


def _mask(ring: list[tuple[float, float]], as_polygon: bool) -> Any:
    polygons = [[value for point in ring for value in point]]
    if as_polygon:
        return polygons
    lengths = coco_masks.merge(coco_masks.frPyObjects(polygons, SIDE, SIDE))
    return {"size": lengths["size"], "counts": lengths["counts"].decode()}
