"""What exporters write: the project's cases, if they are beside the checkout, each with what check-data must say."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from visionlora.cli.main import main

FOLDER = Path(os.environ.get("VISIONLORA_CASES", Path(__file__).parents[4] / "shared" / "cases"))

NEVER = ("remove the folder", "class folders", "Traceback")
"""Of boxes, whatever is wrong with them."""


@dataclass(frozen=True)
class Case:
    """A folder of cases, and what check-data says: exit code, phrases, and phrases that must not be there."""

    name: str
    code: int
    phrases: tuple[str, ...] = ()
    argument: str = ""
    never: tuple[str, ...] = NEVER
    options: tuple[str, ...] = field(default=())


NEVER_FOLDERS = ("remove the folder", "Traceback")
"""Of class folders."""

CASES = [
    Case("bom16", 0, ("COCO, 1 image, 1 object",)),
    Case("cls_gif", 0, ("class folders, 14 images",), never=NEVER_FOLDERS),
    Case("cls_mac", 0, ("class folders, 12 images", "no errors"), never=(*NEVER_FOLDERS, "remarks")),
    Case("cls_test", 0, ("a random 20% of train", "data.val=test takes test instead"), never=NEVER_FOLDERS),
    Case("cls_valtypo", 0, ("class folders, 12 images", "validation"), never=(*NEVER_FOLDERS, "remarks")),
    Case("coco_annotator_empty", 1, ("1 image, 1 object", "annotation 2: the box x 0 to 0, y 0 to 0 has no area")),
    Case("csv_noheader", 0, ("table of labels, 2 images", "no header"), "l.csv"),
    Case("csv_onehot", 0, ("table of labels, 3 images", "data.multilabel=true"), "_classes.csv"),
    Case("csv_onehot", 0, ("table of labels, 3 images", "data.multilabel=true")),
    Case("cvat_rle_crowd", 0, ("COCO, 3 images", "CVAT writes every brush mask", "data.crowds=objects")),
    Case("cvat_xml", 0, ("CVAT for images, 1 image, 1 object",)),
    Case("cvat_yolo", 0, ("YOLO, 3 images, 3 objects",)),
    Case("exif", 1, ("shown as 120 x 160 (EXIF orientation 6)",)),
    Case("imglab_bbox_object", 0, ("1 image, 1 object", "the bbox is an object with x, y, width and height")),
    Case("item_id", 1, ("has no 'image_id' (there is 'item_id')",)),
    Case("keypoints_nobbox", 0, ("1 image, 1 object (masks: 1)", "has no 'bbox': the box around its mask is taken")),
    Case("labelimg_yolo", 0, ("YOLO, 3 images, 3 objects",)),
    Case("labelme", 0, ("LabelMe, 2 images, 2 objects",)),
    Case("ls_json", 0, ("Label Studio, 1 image, 1 object", "the only file of that name is at a.jpg")),
    Case("ls_project_id", 1, ("the only file of that name is at images/90fb-a.jpg",), "result.json"),
    Case("ls_string_cat", 0, ("1 image, 1 object", "ids of categories are written as text")),
    Case("ls_updir", 1, ("the only file of that name is at images/cb06-a.png",), "result.json"),
    Case("nan_json", 1, ("1 image, 1 object", "annotation 2: the bbox holds NaN")),
    Case("no_categories", 2, ("has no 'categories'", "the annotations use 2")),
    Case("pairs_polygon", 0, ("1 image, 1 object (masks: 1)", "points are in pairs")),
    Case("resized", 1, ("annotated as 160 x 120, but 0.jpg has 80 x 60",)),
    Case("results_list", 2, ("a list of detections has no images",)),
    Case("roboflow_dup", 0, ("COCO, 9 images, 9 objects", "Roboflow's name for the group of all: it is left out")),
    Case("seg_255", 1, ("masks, 4 images", "values: {255: person}")),
    Case("seg_aa", 1, ("--round-masks", "values: {255: person}")),
    Case("seg_bool", 0, ("masks, 4 images", "no errors")),
    Case("seg_cvat", 0, ("masks, 4 images", "no errors")),
    Case("seg_jpg", 1, ("is a JPEG", "--round-masks")),
    Case("seg_jpg", 2, ("are 1 apart", "values: {255: person}"), options=("--round-masks",)),
    Case("seg_names", 0, ("masks, 4 images", "no errors")),
    Case("unknown_cat", 1, ("category 2 is none of 0, 1",)),
    Case("url_encoded", 0, ("1 image, 1 object", "'gate%20cam%201.jpg' is encoded as in a URL")),
    Case("via_json", 0, ("VIA, 1 image, 1 object",)),
    Case("via_null_cat", 1, ("the category is null",)),
    Case("voc_float", 0, ("Pascal VOC, 1 image, 1 object",)),
    Case("voc_lower", 0, ("Pascal VOC, 1 image, 1 object",)),
    Case("voc_poly", 0, ("1 image, 1 object (masks: 1)", "has no <bndbox>: its polygon is read")),
    Case("voc_space", 0, ("1 image, 2 objects", "the classes 'Car', 'car' are read as different ones")),
    Case("voc_space_main", 0, ("Pascal VOC, 1 image, 1 object",)),
    Case("voc_swapped", 1, ("1 image, 1 object", "ends before it begins; exchange its corners")),
    Case("voc_zero", 0, ("1 image, 1 object", "reaches 1 px beyond")),
    Case("xyxy", 0, ("6 images, 6 objects", "are they x1, y1, x2, y2?")),
    Case("yolo_bom", 0, ("YOLO, 1 image, 2 objects",)),
    Case("yolo_comma", 1, ("1 image, 1 object", "has commas between its columns")),
    Case("yolo_float_class", 0, ("1 image, 1 object", "the class is written '0.0': 0 is taken")),
    Case("yolo_idx", 1, ("are they counted from 1 here?",)),
    Case("yolo_nc", 2, ("'nc' is '3', but there are 2 names",)),
    Case("yolo_obb", 0, ("rotated boxes (OBB)",)),
    Case("yolo_over", 0, ("1 image, 1 object", "reaches 0.5 px beyond")),
    Case("yolo_pixels", 1, ("these look like pixels",)),
    Case("yolo_roboflow", 0, ("YOLO, 1 image, 1 object", "'../train/images' is taken for 'train/images'")),
    Case("yolo_valid", 0, ("1 image, 1 object", "valid: is read as val")),
    Case("zipped.zip", 2, ("is an archive; unpack it",)),
]


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no cases at {FOLDER}; VISIONLORA_CASES says where they are")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_gives_what_it_must(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr(
        sys, "argv", ["visionlora", "check-data", str(FOLDER / case.name / case.argument), *case.options]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    said = "".join(capsys.readouterr())
    assert ended.value.code == case.code, said
    assert [phrase for phrase in case.phrases if phrase not in said] == [], said
    assert [phrase for phrase in case.never if phrase in said] == [], said
