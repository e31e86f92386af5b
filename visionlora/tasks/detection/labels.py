"""What a detector finds as a data set, to be corrected in a labelling tool: images with COCO or YOLO labels."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from visionlora.files import new_folder
from visionlora.tasks.detection.results import Result
from visionlora.tasks.protocols import AddLabels

IMAGES, LABELS = "images", "labels"
_QUALITY = 95
"""Of a frame's JPEG file."""
_TURNED = 274
"""EXIF's tag of the orientation."""


@contextmanager
def labelled_folder(out: Path, form: str, classes: Sequence[str]) -> Iterator[AddLabels]:
    """What to call with each image and what was found in it; ``out`` is whole when the block ends, and else absent.

    Nothing is kept in memory. Image files are copied, but those that EXIF turns are written upright.

    Args:
        out: an empty or absent folder, for ``images/NAME`` with ``annotations.json`` in COCO's form, or with
            ``labels/NAME.txt`` and ``data.yaml`` in YOLO's, which has boxes alone.
        form: ``coco`` or ``yolo``.
        classes: names in the order of the labels.
    """
    with new_folder(out) as folder:
        write = _coco(folder, classes) if form == "coco" else _yolo(folder, classes)
        with write as describe:

            def add(name: Path, file: Path | None, image: np.ndarray, entries: Sequence[Result]) -> None:
                written = _write_image(folder / IMAGES / name, file, image)
                describe(written.relative_to(folder / IMAGES), image.shape, entries)

            yield add


def _write_image(path: Path, file: Path | None, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if file is None:
        path = path.with_suffix(".jpg")
        Image.fromarray(image).save(path, quality=_QUALITY, subsampling=0)
        return path
    with Image.open(file) as opened:
        plain = opened.getexif().get(_TURNED, 1) == 1
    path = path.with_suffix(file.suffix if plain else ".png")
    if plain:
        shutil.copyfile(file, path)
    else:
        Image.fromarray(image).save(path)
    return path


@contextmanager
def _coco(folder: Path, classes: Sequence[str]) -> Iterator[Any]:
    """annotations.json: the images, which are few words each, come behind the annotations."""
    later = folder / "images.part"
    with (folder / "annotations.json").open("w", encoding="utf-8") as file, later.open("w+", encoding="utf-8") as rest:
        categories = [{"id": label + 1, "name": name} for label, name in enumerate(classes)]
        file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')
        images = annotations = 0

        def describe(name: Path, shape: tuple[int, ...], entries: Sequence[Result]) -> None:
            nonlocal images, annotations
            row = {"id": images + 1, "file_name": f"{IMAGES}/{name.as_posix()}", "width": shape[1], "height": shape[0]}
            rest.write((",\n" if images else "\n") + json.dumps(row))
            images += 1
            for entry in entries:
                width, height = entry["bbox"][2:]
                known = {**entry, "id": annotations + 1, "image_id": images, "area": width * height, "iscrowd": 0}
                file.write((",\n" if annotations else "\n") + json.dumps(known))
                annotations += 1

        yield describe
        file.write('],\n"images": [')
        rest.seek(0)
        shutil.copyfileobj(rest, file)
        file.write("]}\n")
    later.unlink()


@contextmanager
def _yolo(folder: Path, classes: Sequence[str]) -> Iterator[Any]:
    """A .txt file beside each image's name, and data.yaml, which names the classes."""
    about = {"train": IMAGES, "val": IMAGES, "names": dict(enumerate(classes))}
    (folder / "data.yaml").write_text(yaml.safe_dump(about, sort_keys=False), encoding="utf-8")

    def describe(name: Path, shape: tuple[int, ...], entries: Sequence[Result]) -> None:
        path = folder / LABELS / name.with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for entry in entries:
            x, y, width, height = entry["bbox"]
            centre = (x + width / 2) / shape[1], (y + height / 2) / shape[0]
            values = [*centre, width / shape[1], height / shape[0]]
            lines.append(f"{entry['category_id'] - 1} {' '.join(f'{value:.6f}' for value in values)}\n")
        path.write_text("".join(lines), encoding="utf-8")

    yield describe
