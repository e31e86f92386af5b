"""COCO files: what is read from a sound one, and each thing that can be wrong."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as oracle

from helpers.annotation_sets import box, boxes, entry, kinds, write_coco, write_image
from visionlora.data.annotations.annotated import Polygons, RunLengths
from visionlora.data.annotations.coco import read_coco
from visionlora.data.annotations.reading import Options
from visionlora.errors import InputError

# pycocotools 2.0.11 with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Document = dict[str, Any]


def put(annotation: dict[str, Any]) -> Callable[[Document], None]:
    """The only annotation."""
    return lambda document: document.update(annotations=[annotation])


def segmented(segmentation: Any, bbox: tuple[float, ...] = (10, 10, 20, 10), **more: Any) -> Callable[[Document], None]:
    return put(box(1, bbox=bbox, segmentation=segmentation, **more))


def rectangle(x1: int, y1: int, x2: int, y2: int, height: int = 40, width: int = 60) -> np.ndarray:
    pixels = np.zeros((height, width), np.uint8)
    pixels[y1:y2, x1:x2] = 1
    return pixels


def runs(pixels: np.ndarray) -> list[int]:
    """Uncompressed, counted one by one."""
    counts, value = [0], 0
    for pixel in pixels.T.ravel():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def test_a_sound_file_reads_without_a_fault(tmp_path: Path) -> None:
    reading = read_coco(write_coco(tmp_path))
    assert reading.faults == []
    assert reading.root == tmp_path / "images"
    assert reading.data.classes == ["van", "car"]  # by id, 1 before 7
    first, second = reading.data.images
    assert boxes(reading) == [[(10, 10, 30, 20), (30.5, 5, 38.5, 13)], []]
    assert [thing.label for thing in first.objects] == [0, 1]
    assert [thing.source for thing in first.objects] == ["annotation 1", "annotation 2"]
    assert (first.path, first.width, first.height) == (tmp_path / "images" / "1.jpg", 60, 40)
    assert [image.fields for image in (first, second)] == [{"day": "monday"}, {"day": "tuesday"}]


def test_images_lie_beside_the_file_or_where_the_root_says(tmp_path: Path) -> None:
    path = write_coco(tmp_path / "a")
    moved = (tmp_path / "a" / "images").rename(tmp_path / "elsewhere")
    assert kinds(read_coco(path).faults) == ["missing-file", "missing-file"]
    assert len(read_coco(path, root=moved).data) == 2
    for file in moved.iterdir():
        file.rename(path.parent / file.name)
    assert len(read_coco(path).data) == 2
    with pytest.raises(InputError, match="no such folder"):
        read_coco(path, root=tmp_path / "nowhere")


def test_polygons_are_read(tmp_path: Path) -> None:
    ring = [10, 10, 30, 10, 30, 20, 10, 20]
    reading = read_coco(write_coco(tmp_path, segmented([ring])))
    assert reading.faults == []
    assert reading.data.images[0].objects[0].mask == Polygons((tuple(map(float, ring)),))
    assert reading.data.has_masks


@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_are_read(tmp_path: Path, compressed: bool) -> None:
    pixels = rectangle(10, 10, 30, 20)
    packed = oracle.encode(np.asfortranarray(pixels))["counts"]
    counts = packed.decode() if compressed else runs(pixels)
    reading = read_coco(write_coco(tmp_path, segmented({"size": [40, 60], "counts": counts})))
    assert reading.faults == []
    assert reading.data.images[0].objects[0].mask == RunLengths(40, 60, packed)


def test_a_crowd_is_kept_with_a_remark(tmp_path: Path) -> None:
    counts = runs(rectangle(10, 10, 30, 20))
    reading = read_coco(write_coco(tmp_path, segmented({"size": [40, 60], "counts": counts}, iscrowd=1)))
    assert kinds(reading.faults) == ["crowd"]
    assert not reading.faults[0].is_error
    assert reading.data.images[0].objects[0].crowd
    assert reading.data.counts() == [0, 0]


@pytest.mark.parametrize("segmentation", [[], None])
def test_an_empty_segmentation_is_no_mask(tmp_path: Path, segmentation: Any) -> None:
    reading = read_coco(write_coco(tmp_path, segmented(segmentation)))
    assert (reading.faults, reading.data.images[0].objects[0].mask) == ([], None)


RING = [10, 10, 30, 10, 30, 20, 10, 20]
WRONG_ANNOTATIONS = {
    "outside": (
        box(1, bbox=(70, 10, 5, 5)),
        "box-outside",
        "the box x 70 to 75, y 10 to 15 lies outside the image of 60 x 40",
    ),
    "partly outside": (box(1, bbox=(50, 10, 30, 5)), "box-partly-outside", "reaches 20 px beyond the image of 60 x 40"),
    "partly above": (box(1, bbox=(50, -10, 5, 20)), "box-partly-outside", "reaches 10 px beyond"),
    "zero width": (box(1, bbox=(10, 10, 0, 5)), "zero-area", "the box x 10 to 10, y 10 to 15 has no area"),
    "zero height": (box(1, bbox=(10, 10, 5, 0.001)), "zero-area", "has no area"),
    "negative": (box(1, bbox=(10, 10, -5, 5)), "negative-size", "x 10 to 5, y 10 to 15 ends before it begins"),
    "negative height": (box(1, bbox=(10, 10, 5, -5)), "negative-size", "y 10 to 5 ends before it begins"),
    "nan": (box(1, bbox=(10, math.nan, 5, 5)), "not-finite", "the bbox holds NaN or an infinite value"),
    "infinite": (box(1, bbox=(10, 10, math.inf, 5)), "not-finite", "the bbox holds NaN or an infinite value"),
    "beyond any float": (box(1, bbox=(10, 10, 10**400, 5)), "not-finite", "the bbox holds NaN or an infinite value"),
    "text": (box(1, bbox=(10, "10", 5, 5)), "not-a-number", "the bbox holds '10', which is not a number"),
    "null": (box(1, bbox=(10, None, 5, 5)), "not-a-number", "the bbox holds None, which is not a number"),
    "boolean": (box(1, bbox=(10, True, 5, 5)), "not-a-number", "the bbox holds True"),
    "no list": (box(1, bbox="10 10 5 5"), "malformed", "the bbox is '10 10 5 5'; it should be a list of numbers"),
    "three values": (box(1, bbox=(10, 10, 5)), "malformed", "the bbox has 3 values; it is x, y, width, height"),
    "unknown category": (box(1, category=3), "unknown-class", "category 3 is none of 1, 7"),
    "no category": (box(1, category=None), "unknown-class", "the category is null, so that nothing says what it is"),
    "category as a word": (box(1, category="van"), "unknown-class", "category 'van' is none of 1, 7"),
    "no such image": (box(1, image=9), "no-image", "belongs to image 9, which isn't listed"),
    "image as a list": (box(1, image=[1]), "no-image", "belongs to image [1]"),  # type: ignore[arg-type]
    "crowd flag": (box(1, iscrowd=2), "malformed", "iscrowd is 2; it is 0 or 1"),
    "no annotation": (7, "malformed", "is 7; an annotation has keys and values"),
    "no bbox": ({"id": 1, "image_id": 1, "category_id": 1}, "malformed", "has no 'bbox'; add it"),
    "two points": (
        box(1, segmentation=[[10, 10, 30, 20]]),
        "polygon-points",
        "a polygon has 2 points; it needs at least three",
    ),
    "odd polygon": (
        box(1, segmentation=[[*RING, 5]]),
        "polygon-odd",
        "a polygon has 9 coordinates; they come in pairs",
    ),
    "text in polygon": (box(1, segmentation=[[*RING, "5", 5]]), "not-a-number", "the polygon holds '5'"),
    "no list of polygons": (box(1, segmentation="x"), "malformed", "it should be a list of polygons"),
    "polygon outside": (
        box(1, segmentation=[[70, 10, 90, 10, 90, 30]]),
        "mask-outside",
        "the mask lies outside the image of 60 x 40",
    ),
    "polygon partly outside": (
        box(1, bbox=(10, 10, 50, 10), segmentation=[[10, 10, 80, 10, 80, 20, 10, 20]]),
        "mask-outside",
        "the mask reaches 20 px beyond the image of 60 x 40",
    ),
    "polygon without area": (box(1, segmentation=[[10, 10, 20, 15, 30, 20]]), "zero-area", "the mask has no area"),
    "mask and box": (
        box(1, segmentation=[[40, 25, 50, 25, 50, 35, 40, 35]]),
        "mask-box",
        "the box (x 10 to 30, y 10 to 20) is not around the mask (x 40 to 50, y 25 to 35)",
    ),
    "runs of another image": (
        box(1, segmentation={"size": [60, 40], "counts": [2400]}),
        "rle-size",
        "the mask is for [60, 40] (height, width), the image has [40, 60]",
    ),
    "huge runs": (
        box(1, segmentation={"size": [10**6, 10**6], "counts": [0, 10**12]}),
        "rle-size",
        "the mask is for [1000000, 1000000] (height, width)",
    ),
    "runs too short": (
        box(1, segmentation={"size": [40, 60], "counts": [100, 200]}),
        "rle-counts",
        "add up to 300 pixels, the image has 2400",
    ),
    "runs too long": (
        box(1, segmentation={"size": [40, 60], "counts": [100, 10**12]}),
        "rle-counts",
        "add up to 1000000000100 pixels",
    ),
    "negative runs": (
        box(1, segmentation={"size": [40, 60], "counts": [2500, -100]}),
        "rle-counts",
        "damaged ([2500, -100])",
    ),
    "text runs": (box(1, segmentation={"size": [40, 60], "counts": ["2400"]}), "rle-counts", "damaged"),
    "damaged code": (
        box(1, segmentation={"size": [40, 60], "counts": "abc\u00fc"}),
        "rle-counts",
        "damaged ('abc\u00fc')",
    ),
    "cut code": (box(1, segmentation={"size": [40, 60], "counts": "oo"}), "rle-counts", "damaged ('oo')"),
    "endless code": (box(1, segmentation={"size": [40, 60], "counts": "o" * 99 + "0"}), "rle-counts", "damaged"),
    "runs without object": (
        box(1, segmentation={"size": [40, 60], "counts": [2400]}),
        "zero-area",
        "the mask has no pixel",
    ),
    "no counts": (box(1, segmentation={"size": [40, 60]}), "malformed", "run lengths have 'size' and 'counts'"),
}


@pytest.mark.parametrize("case", WRONG_ANNOTATIONS)
def test_a_wrong_annotation_is_one_error(tmp_path: Path, case: str) -> None:
    annotation, kind, message = WRONG_ANNOTATIONS[case]
    reading = read_coco(write_coco(tmp_path, put(annotation)))
    assert kinds(reading.faults) == [kind]
    (fault,) = reading.faults
    assert message in fault.message
    assert "\n" not in str(fault)
    assert fault.is_error
    assert fault.mended
    assert (fault.file, fault.where) == (
        str(tmp_path / "annotations.json"),
        "annotation 1" if isinstance(annotation, dict) else "annotations[0]",
    )
    kept = [thing for image in reading.data.images for thing in image.objects]
    assert len(kept) == ("clipped" in fault.mended)


def test_all_faults_are_found_and_not_only_the_first(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["annotations"] += [box(3, bbox=(70, 0, 5, 5)), box(4, category=9), box(5, image=8), box(6)]
        document["images"].append(entry(3))

    reading = read_coco(write_coco(tmp_path, change))
    assert sorted(kinds(reading.faults)) == [
        "box-outside",
        "missing-file",
        "no-image",
        "repeated-object",
        "unknown-class",
    ]


@pytest.mark.parametrize(
    ("bbox", "expected", "faults"),
    [
        ((50, 10, 10.99, 5), (50, 10, 60, 15), ["overhang"]),
        ((-1, -1, 11, 6), (0, 0, 10, 5), ["overhang"]),
        ((50, 10, 11.01, 5), (50, 10, 60, 15), ["box-partly-outside"]),
        ((50, 10, 10.009, 5), (50, 10, 60, 15), []),
        ((59.995, 10, 5, 5), None, ["box-outside"]),
    ],
)
def test_up_to_a_pixel_of_overhang_is_clipped_with_a_remark(
    tmp_path: Path, bbox: tuple[float, ...], expected: tuple[float, ...] | None, faults: list[str]
) -> None:
    reading = read_coco(write_coco(tmp_path, put(box(1, bbox=bbox))))
    assert kinds(reading.faults) == faults
    assert boxes(reading)[0] == ([] if expected is None else [expected])


def test_a_polygon_partly_outside_is_clipped_to_the_image(tmp_path: Path) -> None:
    reading = read_coco(write_coco(tmp_path, segmented([[50, 10, 60.5, 10, 60.5, 20, 50, 20]], (50, 10, 10.5, 10))))
    assert kinds(reading.faults) == ["overhang", "overhang"]
    mask = reading.data.images[0].objects[0].mask
    assert isinstance(mask, Polygons)
    assert max(mask.rings[0][::2]) == 60


@pytest.mark.parametrize(("share", "faults"), [(0.51, []), (0.49, ["mask-box"])])
def test_box_and_mask_must_overlap_by_half(tmp_path: Path, share: float, faults: list[str]) -> None:
    right = 10 + 20 * share
    reading = read_coco(write_coco(tmp_path, segmented([[10, 10, right, 10, right, 20, 10, 20]])))
    assert kinds(reading.faults) == faults


IMAGE_FAULTS: dict[str, tuple[Callable[[Document], object], str, str, int]] = {
    "missing": (lambda d: d["images"][0].update(file_name="9.jpg"), "missing-file", "'9.jpg' is not in", 1),
    "parent": (
        lambda d: d["images"][0].update(file_name="../9.jpg"),
        "outside-folder",
        "'../9.jpg' leaves the data folder",
        1,
    ),
    "windows parent": (
        lambda d: d["images"][0].update(file_name="a\\..\\..\\9.jpg"),
        "outside-folder",
        "leaves the data folder",
        1,
    ),
    "absolute": (
        lambda d: d["images"][0].update(file_name="/etc/hostname"),
        "outside-folder",
        "'/etc/hostname' leaves",
        1,
    ),
    "drive": (lambda d: d["images"][0].update(file_name="C:\\9.jpg"), "outside-folder", "leaves the data folder", 1),
    "drive alone": (
        lambda d: d["images"][0].update(file_name="C:1.jpg"),
        "outside-folder",
        "leaves the data folder",
        1,
    ),
    "impossible name": (lambda d: d["images"][0].update(file_name="a\0b\ud800"), "missing-file", "'a\\x00b\\ud800'", 1),
    "endless name": (lambda d: d["images"][0].update(file_name="x" * 9999), "missing-file", "'xxxxx", 1),
    "name is a number": (lambda d: d["images"][0].update(file_name=7), "malformed", "the file name is 7", 1),
    "no name": (lambda d: d["images"][0].pop("file_name"), "malformed", "the file name is None", 1),
    "no id": (lambda d: d["images"].append({"file_name": "1.jpg"}), "malformed", "is no image with an 'id'", 2),
    "no image": (lambda d: d["images"].append(7), "malformed", "is no image with an 'id'", 2),
    "other size": (
        lambda d: d["images"][0].update(width=120, height=80),
        "wrong-size",
        "annotated as 120 x 80, but 1.jpg has 60 x 40",
        1,
    ),
    "swapped size": (
        lambda d: d["images"][0].update(width=40, height=60),
        "wrong-size",
        "annotated as 40 x 60, but 1.jpg has 60 x 40",
        1,
    ),
    "size as text": (lambda d: d["images"][0].update(width="60"), "not-a-number", "[width, height] holds '60'", 2),
    "id twice": (lambda d: d["images"][1].update(id=1), "duplicate-image-id", "id 1 is that of an image before", 0),
    "file twice": (
        lambda d: d["images"][1].update(file_name="1.jpg"),
        "duplicate-file",
        "lists '1.jpg', as image 1 does",
        1,
    ),
    "file twice, differently": (
        lambda d: d["images"][1].update(file_name="./1.jpg"),
        "duplicate-file",
        "as image 1 does",
        1,
    ),
}


@pytest.mark.parametrize("case", IMAGE_FAULTS)
def test_a_wrong_image_is_one_error(tmp_path: Path, case: str) -> None:
    change, kind, message, left = IMAGE_FAULTS[case]
    reading = read_coco(write_coco(tmp_path, change))
    assert kinds(reading.faults) == [kind]
    (fault,) = reading.faults
    assert message in fault.message
    assert str(fault).isprintable()
    assert fault.is_error
    assert fault.mended
    assert len(reading.data) == left


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    path = write_coco(tmp_path / "set")
    secret = write_image(tmp_path / "secret.jpg", 9)
    (path.parent / "images" / "1.jpg").unlink()
    (path.parent / "images" / "1.jpg").symlink_to(secret)
    reading = read_coco(path)
    assert kinds(reading.faults) == ["outside-folder"]
    assert "is a link that leaves the data folder" in reading.faults[0].message
    assert secret not in reading.facts and path.parent / "images" / "1.jpg" not in reading.facts


def test_a_link_within_the_folder_is_fine(tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    (tmp_path / "images" / "1.jpg").rename(tmp_path / "images" / "real.jpg")
    (tmp_path / "images" / "1.jpg").symlink_to("real.jpg")
    assert read_coco(path).faults == []


def test_windows_separators_are_read_with_a_remark(tmp_path: Path) -> None:
    path = write_coco(tmp_path, lambda d: d["images"][0].update(file_name="sub\\1.jpg"))
    write_image(tmp_path / "images" / "sub" / "1.jpg", 1)
    reading = read_coco(path)
    assert kinds(reading.faults) == ["other-path"]
    assert reading.faults[0].message == "'sub\\\\1.jpg' has Windows separators; write them as /"
    assert not reading.faults[0].is_error
    assert reading.data.images[0].path == tmp_path / "images" / "sub" / "1.jpg"


def test_duplicate_annotation_ids_are_an_error(tmp_path: Path) -> None:
    reading = read_coco(write_coco(tmp_path, lambda d: d["annotations"][1].update(id=1)))
    assert kinds(reading.faults) == ["duplicate-annotation-id"]
    assert reading.faults[0].message == "id 1 is that of an annotation before; give each its own"
    assert len(boxes(reading)[0]) == 2


def test_ids_may_be_text_and_are_shown_on_one_line(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["images"][0]["id"] = "a\nb"
        document["annotations"] = [box("c\nd", image="a\nb"), box("e", image="a\nb", bbox=(70, 0, 5, 5))]  # type: ignore

    reading = read_coco(write_coco(tmp_path, change))
    assert [fault.where for fault in reading.faults] == ["annotation 'e'"]
    assert reading.data.images[0].objects[0].source == "annotation 'c\\nd'"


def test_a_file_under_two_ids_keeps_the_objects_of_both(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["images"][1]["file_name"] = "1.jpg"
        document["annotations"].append(box(3, image=2, bbox=(1, 1, 5, 5)))

    assert boxes(read_coco(write_coco(tmp_path, change))) == [[(10, 10, 30, 20), (30.5, 5, 38.5, 13), (1, 1, 6, 6)]]


def test_an_image_entry_there_twice_is_kept_once(tmp_path: Path) -> None:
    reading = read_coco(write_coco(tmp_path, lambda d: d["images"].append(dict(d["images"][0]))))
    assert kinds(reading.faults) == ["duplicate-image-id"]
    assert len(reading.data) == 2


def test_a_missing_size_is_a_remark(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        del document["images"][0]["width"], document["images"][0]["height"]

    reading = read_coco(write_coco(tmp_path, change))
    assert kinds(reading.faults) == ["no-size"]
    assert not reading.faults[0].is_error
    assert (reading.data.images[0].width, reading.data.images[0].height) == (60, 40)


def test_a_repeated_object_is_a_remark_and_stays(tmp_path: Path) -> None:
    reading = read_coco(write_coco(tmp_path, lambda d: d["annotations"].append(box(9))))
    assert kinds(reading.faults) == ["repeated-object"]
    assert reading.faults[0].message.startswith("annotation 9 has the class and the box of annotation 1")
    assert len(boxes(reading)[0]) == 3


def test_a_truncated_image_is_an_error_or_left_out_as_asked(tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    image = tmp_path / "images" / "1.jpg"
    image.write_bytes(image.read_bytes()[:-300])
    reading = read_coco(path)
    assert kinds(reading.faults) == ["unreadable"]
    assert "1.jpg: can't be decoded: image file is truncated" in reading.faults[0].message
    skipped = read_coco(path, options=Options(skip_unreadable=True))
    assert kinds(skipped.faults) == ["left-out"]
    assert not skipped.faults[0].is_error
    assert [image.path.name for image in skipped.data.images] == ["2.jpg"]


@pytest.mark.parametrize("mode", ["I;16", "P", "L", "RGBA"])
def test_sixteen_bit_and_palette_images_are_fine(tmp_path: Path, mode: str) -> None:
    path = write_coco(tmp_path, lambda d: d["images"][0].update(file_name="1.png"))
    grey = np.random.default_rng(0).integers(0, 65536, (40, 60)).astype(np.uint16)
    picture = Image.fromarray(grey) if mode == "I;16" else Image.fromarray((grey >> 8).astype(np.uint8)).convert(mode)
    picture.save(tmp_path / "images" / "1.png")
    reading = read_coco(path)
    assert reading.faults == []
    assert (reading.data.images[0].width, reading.data.images[0].height) == (60, 40)


def turned(tmp_path: Path, orientation: int, stored: tuple[int, int], declared: tuple[int, int], **more: Any) -> Any:
    def change(document: Document) -> None:
        document["images"][0].update(width=declared[0], height=declared[1])
        document["annotations"] = [box(1, bbox=(10, 5, 20, 8), **more)]

    path = write_coco(tmp_path, change)
    write_image(tmp_path / "images" / "1.jpg", 1, stored, orientation)
    return read_coco(path)


def test_annotations_of_the_image_as_shown_are_fine(tmp_path: Path) -> None:
    reading = turned(tmp_path, 6, stored=(40, 60), declared=(60, 40))
    assert reading.faults == []
    assert boxes(reading)[0] == [(10, 5, 30, 13)]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("shape", ["box", "polygon", "runs"])
def test_annotations_of_the_stored_pixels_are_an_error_and_turned(tmp_path: Path, orientation: int, shape: str) -> None:
    pixels = rectangle(10, 5, 30, 13)
    segmentation = {
        "box": [],
        "polygon": [[10, 5, 30, 5, 30, 13, 10, 13]],
        "runs": {"size": [40, 60], "counts": runs(pixels)},
    }[shape]
    reading = turned(tmp_path, orientation, (60, 40), (60, 40), segmentation=segmentation)
    assert kinds(reading.faults) == ["exif-size"]
    assert (
        f"annotated as 60 x 40, but 1.jpg is shown as 40 x 60 (EXIF orientation {orientation})"
        in reading.faults[0].message
    )
    picture = Image.fromarray(pixels * 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "mask.png", exif=exif)
    from visionlora.data.images import read_image

    shown = read_image(tmp_path / "mask.png")[:, :, 0] > 0  # (60, 40): PIL turns the mask as it turns the image
    ys, xs = np.nonzero(shown)
    image = reading.data.images[0]
    assert (image.width, image.height) == (40, 60)
    assert boxes(reading)[0] == [(xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]
    mask = image.objects[0].mask
    if isinstance(mask, RunLengths):
        assert np.array_equal(oracle.decode({"size": [60, 40], "counts": mask.counts}), shown)
    if isinstance(mask, Polygons):
        drawn = oracle.decode(oracle.frPyObjects([list(mask.rings[0])], 60, 40))[:, :, 0]
        assert np.array_equal(drawn, shown)


@pytest.mark.parametrize(("orientation", "size"), [(3, (60, 40)), (2, (60, 40)), (6, (50, 50))])
def test_an_orientation_that_no_size_shows_is_a_remark(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    reading = turned(tmp_path, orientation, size, size)
    assert kinds(reading.faults) == ["exif-unclear"]
    assert (
        f"EXIF orientation {orientation}; its annotations are taken to mean the image as it is shown"
        in reading.faults[0].message
    )
    assert not reading.faults[0].is_error


def test_progress_counts_the_images(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    read_coco(write_coco(tmp_path), options=Options(on_progress=lambda *numbers: told.append(numbers)))
    assert told == [(1, 2), (2, 2)]


WHOLE = {
    "no json": ("{", "is not JSON"),
    "binary": ("\udcff\udcfe\udc80x", "is not JSON"),
    "too deep": ("[" * 100_000, "is not JSON"),
    "list": ("[]", "is no COCO file (it holds a list); it needs the keys images, annotations, categories"),
    "detections": ('[{"image_id": 1, "score": 0.5}]', "is no COCO file (a list of detections has no images)"),
    "text": ('"x"', "is no COCO file; it needs the keys"),
    "no images": ('{"annotations": [], "categories": []}', "has no 'images'"),
    "misspelt": (
        '{"images": [], "annotation": [], "categories": []}',
        "has no 'annotations' (did you mean 'annotation'?)",
    ),
    "images no list": ('{"images": {}, "annotations": [], "categories": []}', "'images' is {}; it should be a list"),
    "no categories": ('{"images": [], "annotations": [], "categories": []}', "has no categories"),
    "category twice": (
        '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
        "categories[1]: id 1 is that of 'a' as well",
    ),
    "name twice": (
        '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}',
        "categories[1]: there are two categories 'a'",
    ),
    "no name": ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "categories[0]: the name is None"),
    "name of two lines": (
        '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a\\nb"}]}',
        "categories[0]: the name is 'a\\nb'",
    ),
    "id no number": ('{"images": [], "annotations": [], "categories": [{"id": [1]}]}', "a category has an 'id'"),
    "video": (
        '{"images": [{"id": 1, "frame": 0}], "annotations": [], "categories": []}',
        "no image has a 'file_name' (they have 'frame', 'id'); it describes frames of a video: visionlora frames",
    ),
}


@pytest.mark.parametrize("case", WHOLE)
def test_a_file_that_cannot_be_used_at_all_is_refused(tmp_path: Path, case: str) -> None:
    text, message = WHOLE[case]
    path = tmp_path / "annotations.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as caught:
        read_coco(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_coco(tmp_path)
    with pytest.raises(InputError, match=r"no such file \(did you mean 'annotations.json'\?\)"):
        read_coco(tmp_path / "annotation.json")


def test_a_file_without_images_is_an_error(tmp_path: Path) -> None:
    reading = read_coco(write_coco(tmp_path, lambda d: d.update(images=[], annotations=[])))
    assert kinds(reading.faults) == ["empty"]


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_coco(path).faults == []


def test_pycocotools_reads_the_same(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    def change(document: Document) -> None:
        document["annotations"][0]["segmentation"] = [RING]
        document["annotations"][1]["segmentation"] = {"size": [40, 60], "counts": runs(rectangle(31, 5, 38, 13))}

    path = write_coco(tmp_path, change)
    theirs = COCO(str(path))
    first = read_coco(path).data.images[0]
    for thing, annotation in zip(first.objects, theirs.loadAnns(theirs.getAnnIds(imgIds=[1])), strict=True):
        x, y, w, h = annotation["bbox"]
        assert thing.box == (x, y, x + w, y + h)
        drawn = theirs.annToMask(annotation)
        if isinstance(thing.mask, RunLengths):
            assert np.array_equal(oracle.decode({"size": [40, 60], "counts": thing.mask.counts}), drawn)
    assert json.loads(path.read_text())["images"][0]["day"] == first.fields["day"]
