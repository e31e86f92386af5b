"""Generated street scenes as a data set with boxes and masks."""

from pathlib import Path

import numpy as np
from PIL import Image

from visionlora.data.annotations.annotated import AnnotatedImage, AnnotatedImages, LabelledObject
from visionlora.data.annotations.coco_writing import to_coco
from visionlora.data.annotations.masks import encode
from visionlora.demo.camera import Camera
from visionlora.demo.scenes import CLASSES, Scene, make_scene
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
    images = []
    for number, (day, per_class) in enumerate(days.items()):
        for index in range(per_class * len(CLASSES)):
            scene = make_scene(camera, seed + number, index)
            path = root / "images" / f"{day}_{index:05d}.png"
            Image.fromarray(scene.image).save(path)
            height, width = scene.mask.shape
            images.append(AnnotatedImage(path, width, height, _objects(scene), {"day": day}))
    path = root / "annotations.json"
    write_json(path, to_coco(AnnotatedImages(images, list(THINGS)), [image.path.name for image in images]))
    return path


def _objects(scene: Scene) -> tuple[LabelledObject, ...]:
    if scene.box is None:
        return ()
    height, width = scene.mask.shape
    mask = encode((scene.mask.astype(np.uint8), 0, 0), width, height)
    return (LabelledObject(THINGS.index(CLASSES[scene.label]), scene.box, mask),)
