"""Small data sets in the three layouts, generated, and one thing wrong in each."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visionlora.data.annotations.reading import Reading
from visionlora.data.faults import Fault

WIDTH, HEIGHT = 60, 40


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT), orientation: int = 1) -> Path:
    """Noise, so that no two seeds are nearly the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def box(number: int, image: int = 1, bbox: Any = (10, 10, 20, 10), category: Any = 1, **more: Any) -> dict[str, Any]:
    """A COCO annotation."""
    bbox = list(bbox) if isinstance(bbox, tuple) else bbox
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "iscrowd": 0, **more}


def entry(number: int, **more: Any) -> dict[str, Any]:
    """A COCO image."""
    return {"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT, **more}


def coco_document() -> dict[str, Any]:
    """Two images: one with a van and a car, one without objects."""
    return {
        "images": [entry(1, day="monday"), entry(2, day="tuesday")],
        "annotations": [box(1), box(2, bbox=(30.5, 5, 8, 8), category=7)],
        "categories": [{"id": 7, "name": "car"}, {"id": 1, "name": "van"}],
    }


def write_coco(folder: Path, change: Callable[[dict[str, Any]], object] | None = None) -> Path:
    """images/1.jpg, images/2.jpg and annotations.json, changed."""
    for number in (1, 2):
        write_image(folder / "images" / f"{number}.jpg", number)
    document = coco_document()
    if change is not None:
        change(document)
    path = folder / "annotations.json"
    path.write_text(json.dumps(document))
    return path


OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"""


def voc_object(
    name: str = "van", xmin: Any = 11, ymin: Any = 11, xmax: Any = 30, ymax: Any = 20, difficult: Any = 0
) -> str:
    return OBJECT.format(name=name, xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax, difficult=difficult)


SIZE = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"


def voc_text(*objects: str, size: str = SIZE, filename: str = "1.jpg") -> str:
    return f"<annotation><filename>{filename}</filename>{size}{''.join(objects)}</annotation>"


def write_voc(folder: Path, text: str | bytes | None = None) -> Path:
    """JPEGImages/1.jpg and 2.jpg, Annotations of both; ``text`` is that of the first."""
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        write_image(folder / "JPEGImages" / f"{number}.jpg", number)
    first = voc_text(voc_object(), voc_object("car", 31, 6, 38, 13)) if text is None else text
    content = first if isinstance(first, bytes) else first.encode()
    (folder / "Annotations" / "1.xml").write_bytes(content)
    (folder / "Annotations" / "2.xml").write_text(voc_text(filename="2.jpg"))
    return folder


def write_parts(folder: Path, **parts: str) -> None:
    """ImageSets/Main/part.txt with these lines."""
    (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    for part, lines in parts.items():
        (folder / "ImageSets" / "Main" / f"{part}.txt").write_text(lines + "\n")


YAML = "train: images/train\nval: images/val\nnames: [van, car]\n"


def write_yolo(folder: Path, lines: str = "0 0.333333 0.375 0.333333 0.25", yaml: str = YAML) -> Path:
    """images/train/1.jpg and 2.jpg, images/val/3.jpg; ``lines`` are the labels of the first, 3 has one as well."""
    for number, part in ((1, "train"), (2, "train"), (3, "val")):
        write_image(folder / "images" / part / f"{number}.jpg", number)
        (folder / "labels" / part).mkdir(parents=True, exist_ok=True)
        (folder / "labels" / part / f"{number}.txt").write_text("")
    (folder / "labels" / "train" / "1.txt").write_text(lines + "\n")
    (folder / "labels" / "val" / "3.txt").write_text("1 0.5 0.5 0.2 0.2\n")
    path = folder / "data.yaml"
    path.write_text(yaml)
    return path


def kinds(faults: Iterable[Fault]) -> list[str]:
    return [fault.kind for fault in faults]


def boxes(reading: Reading) -> list[list[tuple[float, ...]]]:
    """Of each image, rounded to a thousandth of a pixel."""
    return [[tuple(round(v, 3) for v in thing.box) for thing in image.objects] for image in reading.data.images]
