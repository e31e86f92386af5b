"""Generated street scenes as a data set with boxes and masks."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visionlora.demo.camera import Camera
from visionlora.demo.scenes import CLASSES, make_scene
from visionlora.files import write_json

THINGS = tuple(name for name in CLASSES if name != "empty")


def write_annotated(root: Path, camera: Camera, days: dict[str, int], seed: int) -> Path:
    """Write root/annotations.json (COCO, with masks) and root/images; the json's path.

    Args:
        root: a folder; what is there is overwritten.
        camera: that sees the street.
        days: name -> scenes per class; one in six scenes is empty. Each image says its ``day``.
        seed: of the first day; the following ones are other series.
    """
    (root / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (day, per_class) in enumerate(days.items()):
        for index in range(per_class * len(CLASSES)):
            scene = make_scene(camera, seed + number, index)
            name = f"{day}_{index:05d}.png"
            Image.fromarray(scene.image).save(root / "images" / name)
            height, width = scene.mask.shape
            image_id = len(images) + 1
            images.append({"id": image_id, "file_name": name, "width": width, "height": height, "day": day})
            if scene.box is None:
                continue
            x1, y1, x2, y2 = scene.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": THINGS.index(CLASSES[scene.label]) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(scene.mask.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": [height, width], "counts": run_lengths(scene.mask)},
                }
            )
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(THINGS)]
    path = root / "annotations.json"
    write_json(path, {"images": images, "annotations": annotations, "categories": categories})
    return path


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed code of a mask (H, W) bool: lengths of runs down the columns, the first of False."""
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    return [int(length) for length in np.diff(changes, prepend=0, append=flat.size)]
