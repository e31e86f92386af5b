"""LabelMe: shapes of every kind, and where the image of a JSON file is."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.annotation_sets import HEIGHT, WIDTH, boxes, kinds, write_image
from visionlora.data.annotations.annotated import Polygons, RunLengths
from visionlora.data.annotations.labelme import read_labelme
from visionlora.data.annotations.layouts import read_annotations
from visionlora.data.annotations.masks import rasterise
from visionlora.errors import InputError


def shape(points: Any, kind: str = "rectangle", label: Any = "car", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


BOX = shape([[10, 5], [30, 20]])


def write(path: Path, *shapes: Any, image: str | None = None, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": image or f"{path.stem}.jpg"}
    content |= {"imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH, **more}
    path.write_text(json.dumps(content))
    return path


def test_shapes_of_every_kind(tmp_path: Path) -> None:
    shapes = [
        shape([[30, 20], [10, 5]]),  # corners in any order
        shape([[10, 5], [30, 5], [30, 20]], "polygon", "van"),
        shape([[20, 20], [20, 30]], "circle"),
        shape([[1, 1], [9, 9]], "line"),
        shape([[1, 1]], "point"),
        shape([[10, 5], [30, 5], [30, 20], [10, 20]]),  # as X-AnyLabeling writes rectangles
    ]
    write_image(tmp_path / "1.jpg")
    write(tmp_path / "1.json", *shapes)
    reading = read_labelme(tmp_path)
    assert reading.data.classes == ["car", "van"]
    first, second, circle, last = reading.data.images[0].objects
    assert (first.box, first.mask, last.box) == ((10, 5, 30, 20), None, (10, 5, 30, 20))
    assert second.mask == Polygons(((10, 5, 30, 5, 30, 20),))
    assert circle.box == pytest.approx((10, 10, 30, 30), abs=0.1)
    assert kinds(reading.faults) == ["no-shape", "no-shape", "repeated-object"]


def test_a_mask_is_placed_at_its_corner(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 2, (6, 9)).astype(bool)
    pixels[0, 0] = pixels[-1, -1] = True
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    code = base64.b64encode(file.getvalue()).decode()
    write_image(tmp_path / "1.jpg")
    write(tmp_path / "1.json", shape([[20, 7], [28, 12]], "mask", mask=code))
    (thing,) = read_labelme(tmp_path).data.images[0].objects
    assert isinstance(thing.mask, RunLengths)
    whole = np.zeros((HEIGHT, WIDTH), np.uint8)
    whole[7:13, 20:29] = pixels
    assert np.array_equal(rasterise(thing.mask, np.eye(3)[:2], WIDTH, HEIGHT), whole)


def test_shapes_of_one_group_are_one_object(tmp_path: Path) -> None:
    first = shape([[1, 1], [9, 1], [9, 9]], "polygon", group_id=3)
    second = shape([[21, 1], [29, 1], [29, 9]], "polygon", group_id=3)
    other = shape([[21, 21], [29, 21], [29, 29]], "polygon", "van", group_id=3)
    write_image(tmp_path / "1.jpg")
    write(tmp_path / "1.json", first, second, other)
    reading = read_labelme(tmp_path)
    assert boxes(reading) == [[(1, 1, 29, 9), (21, 21, 29, 29)]]
    assert kinds(reading.faults) == ["assumed"]


@pytest.mark.parametrize(
    ("json_file", "image_file", "written", "remarks"),
    [
        ("1.json", "1.jpg", "1.jpg", []),
        ("1.JSON", "1.JPG", "1.JPG", []),
        ("labels/1.json", "images/1.jpg", "../images/1.jpg", []),
        ("labels/1.json", "images/1.jpg", "..\\images\\1.jpg", []),
        ("1.json", "1.jpg", "C:\\Users\\ann\\pictures\\1.jpg", []),
        ("a/b/1.json", "a/b/1.jpg", "1.jpg", []),
        ("x.json", "sub/1.jpg", "/home/ann/1.jpg", ["other-path"]),
        ("1.json", "1.jpg", "2.jpg", ["other-path"]),
    ],
)
def test_where_the_image_is(tmp_path: Path, json_file: str, image_file: str, written: str, remarks: list[str]) -> None:
    write_image(tmp_path / image_file)
    write(tmp_path / json_file, BOX, image=written)
    reading = read_labelme(tmp_path)
    assert [image.path for image in reading.data.images] == [tmp_path / image_file]
    assert kinds(reading.faults) == remarks
    assert read_annotations(tmp_path).counts() == [1]


def test_images_may_lie_in_another_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "photos" / "1.jpg")
    write(tmp_path / "json" / "1.json", BOX)
    assert read_annotations(tmp_path / "json", root=tmp_path / "photos").counts() == [1]


FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "one corner": (shape([[1, 1]]), "malformed", "a rectangle has 1 point; it needs two corners"),
    "no area": (shape([[1, 1], [1, 9]]), "zero-area", "has no area"),
    "no label": (shape([[1, 1], [9, 9]], label=""), "malformed", "the class is ''; name it"),
    "text": (shape([["a", 1], [9, 9]]), "not-a-number", "the shape holds 'a'"),
    "a point of three": (shape([[1, 1, 1], [9, 9, 9]]), "malformed", "a point is [1, 1, 1]; it has an x and a y"),
    "no points": ({"label": "car"}, "malformed", "a shape has a 'label' and 'points'"),
    "new kind": (shape([[1, 1], [9, 9]], "blob"), "malformed", "the shape_type is 'blob', which is not known"),
    "two points": (shape([[1, 1], [9, 9]], "polygon"), "polygon-points", "a polygon has 2 points"),
    "outside": (shape([[1, 1], [90, 9]]), "box-partly-outside", "reaches 30 px beyond"),
    "no mask": (shape([[1, 1], [9, 9]], "mask"), "malformed", "the mask has no pixels"),
    "broken mask": (shape([[1, 1], [9, 9]], "mask", mask="AAAA"), "malformed", "the mask is no PNG that can be read"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_wrong_shape_is_one_error(tmp_path: Path, case: str) -> None:
    wrong, kind, message = FAULTS[case]
    write_image(tmp_path / "1.jpg")
    write(tmp_path / "1.json", shape([[20, 20], [30, 30]]), wrong)
    reading = read_labelme(tmp_path)
    assert kinds(reading.faults) == [kind]
    assert message in reading.faults[0].message
    assert reading.faults[0].is_error and reading.faults[0].where.startswith("shapes[1]")
    assert reading.data.images[0].objects[0].box == (20, 20, 30, 30)


def test_files_that_are_none(tmp_path: Path) -> None:
    for name in ("1", "2", "3"):
        write_image(tmp_path / f"{name}.jpg", int(name))
    write(tmp_path / "1.json", BOX)
    (tmp_path / "2.json").write_text("{")
    (tmp_path / "3.json").write_text("{}")
    reading = read_labelme(tmp_path)
    assert kinds(reading.faults) == ["broken-file", "broken-file"]
    assert len(reading.data) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="LabelMe has one for each image"):
        read_labelme(tmp_path / "empty")


def test_an_image_inside_the_file_is_named(tmp_path: Path) -> None:
    write(tmp_path / "1.json", BOX, imageData="aGVsbG8=")
    (fault,) = read_labelme(tmp_path).faults
    assert (fault.kind, fault.is_error) == ("missing-file", True)
    assert "only inside this file" in fault.message
