"""VIA: regions of its three versions, and which attribute is the class."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.annotation_sets import boxes, kinds, write_image
from visionlora.data.annotations.annotated import Polygons
from visionlora.data.annotations.layouts import examine_annotations, read_annotations
from visionlora.data.annotations.via import read_via
from visionlora.errors import InputError

RECT = {"name": "rect", "x": 10, "y": 5, "width": 20, "height": 15}


def region(shape: Any = None, **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": shape or RECT, "region_attributes": attributes or {"class": "car"}}


def write(folder: Path, *regions: Any, name: str = "via_region_data.json") -> Path:
    write_image(folder / "1.jpg", 1)
    content = {"1.jpg999": {"filename": "1.jpg", "size": 999, "regions": list(regions), "file_attributes": {}}}
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def test_shapes_of_every_kind(tmp_path: Path) -> None:
    polygon = {"name": "polygon", "all_points_x": [11, 30, 30], "all_points_y": [5, 5, 20]}
    circle, ellipse = (
        {"name": "circle", "cx": 20, "cy": 20, "r": 10},
        {"name": "ellipse", "cx": 20, "cy": 20, "rx": 5, "ry": 9},
    )
    turned = {"name": "ellipse", "cx": 20, "cy": 20, "rx": 5, "ry": 9, "theta": 1.5707963}
    point = {"name": "point", "cx": 1, "cy": 1}
    reading = read_via(write(tmp_path, *(region(shape) for shape in (RECT, polygon, circle, ellipse, turned, point))))
    things = reading.data.images[0].objects
    assert (things[0].box, things[0].mask) == ((10, 5, 30, 20), None)
    assert things[1].mask == Polygons(((11, 5, 30, 5, 30, 20),))
    assert things[2].box == pytest.approx((10, 10, 30, 30), abs=0.1)
    assert things[3].box == pytest.approx((15, 11, 25, 29), abs=0.1)
    assert things[4].box == pytest.approx((11, 15, 29, 25), abs=0.1)
    assert kinds(reading.faults) == ["no-shape"]


def project(folder: Path) -> None:
    images = {"1.jpg-1": {"filename": "1.jpg", "size": -1, "regions": [region()], "file_attributes": {}}}
    settings = {
        "_via_settings": {},
        "_via_attributes": {"region": {}, "file": {}},
        "_via_data_format_version": "2.0.10",
    }
    (folder / "via_project.json").write_text(json.dumps({**settings, "_via_img_metadata": images}))


def numbered(folder: Path) -> None:
    images = {
        "1.jpg9": {"fileref": "", "filename": "1.jpg", "size": 9, "regions": {"0": region()}, "file_attributes": {}}
    }
    (folder / "via.json").write_text(json.dumps(images))


def third(folder: Path) -> None:
    content = {
        "project": {"pid": "__VIA_PROJECT_ID__", "vid_list": ["1"]},
        "config": {},
        "attribute": {"1": {"aname": "class", "type": 4, "options": {"0": "van", "1": "car"}}},
        "file": {"1": {"fid": "1", "fname": "1.jpg", "type": 2, "loc": 1, "src": ""}},
        "metadata": {"1_a": {"vid": "1", "flg": 0, "z": [], "xy": [2, 10, 5, 20, 15], "av": {"1": "1"}}},
        "view": {"1": {"fid_list": ["1"]}},
    }
    (folder / "via_project.json").write_text(json.dumps(content))


@pytest.mark.parametrize("version", [project, numbered, third])
def test_every_version_is_told_and_read(tmp_path: Path, version: Any) -> None:
    write_image(tmp_path / "1.jpg", 1)
    version(tmp_path)
    reading = examine_annotations(tmp_path)
    assert (reading.layout, reading.faults, reading.data.classes) == ("via", [], ["car"])
    assert boxes(reading) == [[(10, 5, 30, 20)]]


@pytest.mark.parametrize(
    ("attributes", "faults"),
    [
        ({"vehicle": "car"}, []),
        ({"Class": "car", "colour": "red"}, ["assumed"]),
        ({"type": {"car": True, "van": False}}, []),
        ({"name": "car", "note": ""}, []),
    ],
)
def test_which_attribute_is_the_class(tmp_path: Path, attributes: dict[str, Any], faults: list[str]) -> None:
    reading = read_via(write(tmp_path, region(**attributes)))
    assert (reading.data.classes, kinds(reading.faults)) == (["car"], faults)


def test_attributes_that_name_no_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="regions have 'colour', 'size', and none says that it is the class"):
        read_via(write(tmp_path, region(colour="red", size="big")))
    with pytest.raises(InputError, match="no region has an attribute with a value"):
        read_via(write(tmp_path, {"shape_attributes": RECT, "region_attributes": {}}))


def test_a_region_without_a_class_is_an_error(tmp_path: Path) -> None:
    reading = read_via(write(tmp_path, region(), region(**{"class": ""})))
    assert kinds(reading.faults) == ["malformed"]
    assert "region 1" in reading.faults[0].where
    assert len(reading.data.images[0].objects) == 1


@pytest.mark.parametrize("folder", ["images", "photos/monday"])
def test_images_are_found_by_name(tmp_path: Path, folder: str) -> None:
    path = write(tmp_path, region())
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "1.jpg").rename(tmp_path / folder / "1.jpg")
    assert read_annotations(path).images[0].path == tmp_path / folder / "1.jpg"


WRONG = {
    "no shape": ({"region_attributes": {"class": "car"}}, "a region has 'shape_attributes'"),
    "uneven": (region({"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1]}), "of one length"),
    "unknown": (region({"name": "cube"}), "the shape is 'cube', which is not known"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_region_is_one_error(tmp_path: Path, case: str) -> None:
    wrong, message = WRONG[case]
    reading = read_via(write(tmp_path, region(), wrong))
    assert kinds(reading.faults) == ["malformed"]
    assert message in reading.faults[0].message
