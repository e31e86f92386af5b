"""Annotated images as a COCO document."""

from typing import Any

from visionlora.data.annotations import polygons, run_lengths
from visionlora.data.annotations.annotated import AnnotatedImages, LabelledObject, Polygons


def to_coco(data: AnnotatedImages, names: list[str]) -> dict[str, Any]:
    """A COCO document; ``names`` are the images' file names in it. Fields become keys of the images."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (image, name) in enumerate(zip(data.images, names, strict=True), start=1):
        images.append({"id": number, "file_name": name, "width": image.width, "height": image.height, **image.fields})
        for thing in image.objects:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **_annotation(thing)})
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(data.classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _annotation(thing: LabelledObject) -> dict[str, Any]:
    x1, y1, x2, y2 = thing.box
    area = (x2 - x1) * (y2 - y1)
    segmentation: Any = []
    if isinstance(thing.mask, Polygons):
        area = polygons.area(thing.mask)
        segmentation = [[_plain(value) for value in ring] for ring in thing.mask.rings]
    elif thing.mask is not None:
        area = run_lengths.area(thing.mask)
        size = [thing.mask.height, thing.mask.width]
        segmentation = {"size": size, "counts": thing.mask.counts.decode("ascii")}
    return {
        "category_id": thing.label + 1,
        "bbox": [_plain(value) for value in (x1, y1, x2 - x1, y2 - y1)],
        "area": _plain(area),
        "iscrowd": int(thing.crowd),
        "segmentation": segmentation,
    }


def _plain(value: float) -> float:
    """Without the noise of a subtraction: 50.24, not 50.23999999999999."""
    return round(value, 6)
