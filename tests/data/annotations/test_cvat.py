"""CVAT for images: shapes of every kind, and what is no image."""

from pathlib import Path

import numpy as np
import pytest

from helpers.annotation_sets import HEIGHT, WIDTH, boxes, kinds, write_image
from visionlora.data.annotations.annotated import Polygons
from visionlora.data.annotations.cvat import read_cvat
from visionlora.data.annotations.layouts import examine_annotations, read_annotations
from visionlora.data.annotations.masks import area_through, rasterise
from visionlora.errors import InputError

UNMOVED = np.eye(3)[:2]
META = """<meta><task><labels><label><name>van</name><type>any</type></label>
<label><name>car</name></label><label><name>day</name><type>tag</type></label></labels></task></meta>"""
BOX = '<box label="car" xtl="10" ytl="5" xbr="30" ybr="20" z_order="0"/>'


def write(
    folder: Path, *shapes: str, meta: str = "", name: str = "1.jpg", image: str = "images/1.jpg", more: str = ""
) -> Path:
    write_image(folder / image)
    head = f'<image id="0" name="{name}" width="{WIDTH}" height="{HEIGHT}" {more}>'
    body = f"<version>1.1</version>{meta}{head}{''.join(shapes)}</image>"
    text = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{body}</annotations>'
    path = folder / "annotations.xml"
    path.write_text(text)
    return path


def test_shapes_of_every_kind(tmp_path: Path) -> None:
    polygon = '<polygon label="van" points="10,5;30,5;30.0,20.0"/>'
    ellipse = '<ellipse label="car" cx="20" cy="20" rx="10" ry="5"/>'
    others = '<points label="car" points="1,1"/><polyline label="car" points="1,1;2,2"/><tag label="day"/>'
    reading = read_cvat(write(tmp_path, BOX, polygon, ellipse, others, meta=META))
    assert reading.data.classes == ["van", "car"]  # as declared, without what can't be drawn
    first, second, third = reading.data.images[0].objects
    assert (first.box, first.mask) == ((10, 5, 30, 20), None)
    assert second.mask == Polygons(((10, 5, 30, 5, 30, 20),))
    assert third.box == pytest.approx((10, 15, 30, 25), abs=0.05)
    assert third.mask is not None
    assert area_through(third.mask, UNMOVED) == pytest.approx(np.pi * 50, rel=0.05)
    assert kinds(reading.faults) == ["no-shape"]
    assert "'points', 'polyline', 'tag'" in reading.faults[0].message


def test_a_mask_is_runs_row_by_row_in_its_window(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 2, (7, 11)).astype(np.uint8)
    runs, value = [0], 0
    for pixel in pixels.ravel():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    rle = ", ".join(map(str, runs))
    mask = f'<mask label="car" rle="{rle}" left="20" top="9" width="11" height="7"/>'
    reading = read_cvat(write(tmp_path, mask))
    (thing,) = reading.data.images[0].objects
    assert thing.mask is not None and reading.faults == []
    whole = np.zeros((HEIGHT, WIDTH), np.uint8)
    whole[9:16, 20:31] = pixels
    assert np.array_equal(rasterise(thing.mask, UNMOVED, WIDTH, HEIGHT), whole)


def test_a_turned_box_is_an_outline(tmp_path: Path) -> None:
    turned = '<box label="car" xtl="20" ytl="10" xbr="40" ybr="20" rotation="90"/>'
    reading = read_cvat(write(tmp_path, turned))
    assert boxes(reading) == [[(25, 5, 35, 25)]]
    assert kinds(reading.faults) == ["rotated"]
    (thing,) = reading.data.images[0].objects
    assert isinstance(thing.mask, Polygons)


def test_the_lower_shape_comes_first(tmp_path: Path) -> None:
    upper = '<box label="van" xtl="1" ytl="1" xbr="9" ybr="9" z_order="2"/>'
    reading = read_cvat(write(tmp_path, upper, BOX))
    assert [reading.data.classes[thing.label] for thing in reading.data.images[0].objects] == ["car", "van"]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("images/1.jpg", "1.jpg"),
        ("images/default/1.jpg", "1.jpg"),
        ("images/Train/sub/1.jpg", "sub/1.jpg"),
        ("1.jpg", "1.jpg"),
        ("Images/1.jpg", "1.jpg"),
        ("images/frame_000000.PNG", "frame_000000"),
    ],
)
def test_images_are_found_where_cvat_puts_them(tmp_path: Path, image: str, name: str) -> None:
    path = write(tmp_path, BOX, image=image, name=name)
    reading = examine_annotations(tmp_path)
    assert [found.path for found in reading.data.images] == [tmp_path / image]
    assert reading.layout == "cvat"
    assert read_annotations(path, root=(tmp_path / image).parent).counts() == [1]


def test_a_subset_is_a_part(tmp_path: Path) -> None:
    reading = read_cvat(write(tmp_path, BOX, more='subset="Validation"'))
    assert reading.data.images[0].fields == {"part": "val"}


FAULTS = {
    "no label": ('<box xtl="1" ytl="1" xbr="9" ybr="9"/>', "malformed", "the class is None; name it"),
    "text": ('<box label="car" xtl="a" ytl="1" xbr="9" ybr="9"/>', "not-a-number", "the box holds 'a'"),
    "missing": ('<box label="car" ytl="1" xbr="9" ybr="9"/>', "not-a-number", "the box holds None"),
    "no points": ('<polygon label="car"/>', "not-a-number", "the polygon holds ''"),
    "outside": ('<box label="car" xtl="1" ytl="1" xbr="99" ybr="9"/>', "box-partly-outside", "reaches 39 px beyond"),
    "mask outside": (
        '<mask label="car" rle="0, 4" left="59" top="0" width="2" height="2"/>',
        "mask-outside",
        "the mask of 2 x 2 at 59, 0 reaches beyond the image of 60 x 40",
    ),
    "runs too long": (
        '<mask label="car" rle="0, 5" left="0" top="0" width="2" height="2"/>',
        "rle-counts",
        "add up to 5 pixels of 4",
    ),
    "huge window": (
        '<mask label="car" rle="0, 5" left="0" top="0" width="1e12" height="1e12"/>',
        "mask-outside",
        "reaches beyond the image",
    ),
    "empty mask": ('<mask label="car" rle="4" left="0" top="0" width="2" height="2"/>', "zero-area", "no pixel"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_wrong_shape_is_one_error(tmp_path: Path, case: str) -> None:
    shape, kind, message = FAULTS[case]
    reading = read_cvat(write(tmp_path, BOX, shape))
    assert kinds(reading.faults) == [kind]
    assert message in reading.faults[0].message
    assert reading.data.images[0].objects[0].box == (10, 5, 30, 20)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations><track id='0' label='car'/></annotations>", "is CVAT for video 1.1"),
        ("<annotations/>", "has no <image>"),
        ("<annotations><image></annotations>", "is no XML that can be read"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotations><image/></annotations>", "it has a DOCTYPE"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "annotations.xml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_annotations(tmp_path)
    assert message in str(caught.value)
