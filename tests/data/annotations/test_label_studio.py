"""Label Studio: regions of every kind in per cent, paths of its server, annotations by several people."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.annotation_sets import HEIGHT, WIDTH, boxes, kinds, write_image
from visionlora.data.annotations.annotated import Polygons, RunLengths
from visionlora.data.annotations.label_studio import read_label_studio
from visionlora.data.annotations.layouts import examine_annotations, read_annotations
from visionlora.data.annotations.masks import area_through, rasterise

UNMOVED = np.eye(3)[:2]
RECTANGLE = {"x": 10, "y": 20, "width": 50, "height": 25, "rotation": 0}


def result(
    kind: str = "rectangle", label: Any = "car", value: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    labels = {f"{kind}labels": [label]} if label else {}
    sizes = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    value = {**(RECTANGLE if value is None else value), **labels}
    return {
        "id": "a",
        "type": f"{kind}labels",
        "from_name": "label",
        "to_name": "image",
        "value": value,
        **sizes,
        **more,
    }


def task(*results: Any, image: str = "/data/upload/1/0a1b2c3d-1.jpg", number: int = 1, **more: Any) -> dict[str, Any]:
    annotations = [{"id": 5, "was_cancelled": False, "result": list(results)}]
    return {"id": number, "annotations": annotations, "data": {"image": image}, **more}


def write(folder: Path, *tasks: Any) -> Path:
    write_image(folder / "1.jpg", 1)
    path = folder / "project-1.json"
    path.write_text(json.dumps(list(tasks)))
    return path


def test_regions_of_every_kind(tmp_path: Path) -> None:
    polygon = result("polygon", "van", {"points": [[10, 10], [50, 10], [50, 50]], "closed": True})
    ellipse = result("ellipse", value={"x": 50, "y": 50, "radiusX": 10, "radiusY": 20, "rotation": 0})
    point = result("keypoint", value={"x": 1, "y": 1, "width": 1})
    choice = {"type": "choices", "value": {"choices": ["day"]}}
    reading = read_label_studio(write(tmp_path, task(result(), polygon, ellipse, point, choice)))
    assert reading.data.classes == ["car", "van"]
    first, second, third = reading.data.images[0].objects
    assert (first.box, first.mask) == ((6, 8, 36, 18), None)
    assert second.mask == Polygons(((6, 4, 30, 4, 30, 20),))
    assert third.box == pytest.approx((24, 12, 36, 28), abs=0.05)
    assert third.mask is not None
    assert area_through(third.mask, UNMOVED) == pytest.approx(np.pi * 6 * 8, rel=0.05)
    assert kinds(reading.faults) == ["no-shape", "no-shape", "other-path"]


def test_sizes_may_be_missing(tmp_path: Path) -> None:
    plain = result()
    del plain["original_width"], plain["original_height"]
    reading = read_label_studio(write(tmp_path, task(plain)))
    assert boxes(reading) == [[(6, 8, 36, 18)]]


def test_a_rectangle_is_turned_about_its_corner_in_pixels(tmp_path: Path) -> None:
    turned = result(value={**RECTANGLE, "x": 50, "y": 20, "width": 20, "height": 20, "rotation": 90})
    reading = read_label_studio(write(tmp_path, task(turned)))
    assert boxes(reading) == [[(22, 8, 30, 20)]]  # 12 x 8 px at (30, 8), turned clockwise about that corner
    assert kinds(reading.faults) == ["rotated", "other-path"]


def test_a_label_may_be_a_result_of_its_own(tmp_path: Path) -> None:
    region = {**result(label=None), "type": "rectangle"}
    label = {"id": "a", "type": "labels", "value": {"labels": ["van"]}}
    reading = read_label_studio(write(tmp_path, task(region, label)))
    assert reading.data.classes == ["van"]
    assert boxes(reading) == [[(6, 8, 36, 18)]]


def packed(values: np.ndarray) -> list[int]:
    """Label Studio's code of (count,) uint8, single values and runs by turns."""
    lengths = (3, 4, 8, 16)
    bits = f"{len(values):032b}" + f"{8 - 1:05b}" + "".join(f"{length - 1:04b}" for length in lengths)
    place = 0
    while place < len(values):
        end = place + 1
        while end < len(values) and values[end] == values[place] and end - place < 60_000:
            end += 1
        which = next(n for n, length in enumerate(lengths) if end - place - 1 < 2**length)
        repeats = end - place > 1
        bits += f"{int(repeats)}{which:02b}" + format(end - place - 1, f"0{lengths[which]}b") + f"{values[place]:08b}"
        place = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[n : n + 8], 2) for n in range(0, len(bits), 8)]


def test_a_brush_is_where_alpha_is(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:20, 10:31] = np.random.default_rng(2).integers(0, 2, (15, 21))
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[..., 3] = mask * 255
    brush = result("brush", value={"format": "rle", "rle": packed(pixels.ravel())})
    reading = read_label_studio(write(tmp_path, task(brush)))
    (thing,) = reading.data.images[0].objects
    assert isinstance(thing.mask, RunLengths)
    assert np.array_equal(rasterise(thing.mask, UNMOVED, WIDTH, HEIGHT), mask)


@pytest.mark.parametrize("rle", [None, [], [1, 2, 3], ["a"], packed(np.zeros(8, np.uint8)), [255] * 40])
def test_a_damaged_brush_is_an_error(tmp_path: Path, rle: Any) -> None:
    brush = result("brush", value={"format": "rle", "rle": rle})
    reading = read_label_studio(write(tmp_path, task(result(), brush)))
    assert kinds(reading.faults) == ["rle-counts", "other-path"]
    assert len(reading.data.images[0].objects) == 1


@pytest.mark.parametrize(
    ("image", "file"),
    [
        ("/data/upload/1/0a1b2c3d-1.jpg", "1.jpg"),
        ("/data/upload/1/0a1b2c3d-1.jpg", "0a1b2c3d-1.jpg"),
        ("/data/local-files/?d=cams/north/1.jpg", "cams/north/1.jpg"),
        ("/data/local-files/?d=cams%2Fnorth%2F1.jpg", "north/1.jpg"),
        ("s3://bucket/a/b/1.jpg", "1.jpg"),
        ("http://localhost:8080/data/upload/1.jpg?token=abc.def", "1.jpg"),
        ("https://x.org/gate%20cam.jpg", "gate cam.jpg"),
        ("1.jpg", "images/1.jpg"),
    ],
)
def test_paths_of_the_server_find_the_file_here(tmp_path: Path, image: str, file: str) -> None:
    path = write(tmp_path, task(result(), image=image))
    (tmp_path / "1.jpg").unlink()
    write_image(tmp_path / file)
    write_image(tmp_path / "other" / "north.jpg", 2)
    reading = examine_annotations(path)
    assert [found.path for found in reading.data.images] == [tmp_path / file]
    assert not [fault for fault in reading.faults if fault.is_error]


def test_two_files_of_one_name_are_told_apart_or_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, task(result(), image="s3://bucket/north/1.jpg"))
    (tmp_path / "1.jpg").unlink()
    write_image(tmp_path / "north" / "1.jpg"), write_image(tmp_path / "south" / "1.jpg", 1)
    assert examine_annotations(path).data.images[0].path == tmp_path / "north" / "1.jpg"
    path = write(tmp_path / "set", task(result(), image="s3://bucket/west/1.jpg"))
    (tmp_path / "set" / "1.jpg").unlink()
    write_image(tmp_path / "set" / "a" / "1.jpg"), write_image(tmp_path / "set" / "b" / "1.jpg", 1)
    (fault,) = examine_annotations(path).faults
    assert fault.kind == "missing-file"
    assert "2 files have that name: a/1.jpg, b/1.jpg; write which is meant" in fault.message


def test_what_is_not_annotated_is_left_out_with_a_remark(tmp_path: Path) -> None:
    empty, skipped = task(number=1), task(result(), number=2)
    skipped["annotations"][0]["was_cancelled"] = True
    undone = {**task(number=3), "annotations": []}
    reading = read_label_studio(write(tmp_path, empty, skipped, undone))
    assert [len(image.objects) for image in reading.data.images] == [0]  # annotated with nothing: a negative
    assert kinds(reading.faults) == ["unlabelled", "unlabelled", "other-path"]
    assert [fault.where for fault in reading.faults[:2]] == ["task 2", "task 3"]


def test_of_several_annotations_the_first_is_taken(tmp_path: Path) -> None:
    twice = task(result())
    twice["annotations"].append({"id": 6, "result": [result(label="van")]})
    reading = read_label_studio(write(tmp_path, twice))
    assert reading.data.classes == ["car"]
    assert kinds(reading.faults) == ["assumed", "other-path"]


def test_the_short_form_is_read(tmp_path: Path) -> None:
    value = {**RECTANGLE, "rectanglelabels": ["car"], "original_width": WIDTH, "original_height": HEIGHT}
    path = write(tmp_path, {"image": "/data/upload/1/0a1b2c3d-1.jpg", "id": 7, "label": [value], "annotator": 1})
    reading = examine_annotations(path)
    assert (reading.layout, boxes(reading)) == ("label-studio", [[(6, 8, 36, 18)]])


WRONG = {
    "no label": (result(label=None), "the rectangle has no label"),
    "turned image": (result(image_rotation=90), "the image was turned by 90 degrees"),
    "no value": ({"type": "rectanglelabels"}, "has no value"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_region_is_one_error(tmp_path: Path, case: str) -> None:
    wrong, message = WRONG[case]
    reading = read_label_studio(write(tmp_path, task(result(), wrong)))
    assert kinds(reading.faults) == ["malformed", "other-path"]
    assert message in reading.faults[0].message
    assert read_annotations(write(tmp_path / "good", task(result()))).counts() == [1]
