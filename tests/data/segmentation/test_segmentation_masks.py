"""Folders of masks: what is read from sound ones, and each thing that can be wrong."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.mask_sets import CLASSES, COLORED, COLORS, HEIGHT, WIDTH, labels, paint, save, write_set
from visionlora.data.annotations.reading import Options
from visionlora.data.faults import ERRORS, REMARKS
from visionlora.data.segmentation.class_map import IGNORE, make_class_map
from visionlora.data.segmentation.mask_files import read_mask
from visionlora.data.segmentation.mask_folders import MaskPlace, find_mask_folders
from visionlora.data.segmentation.mask_reading import MaskReading, examine_mask_folders, read_masks
from visionlora.data.segmentation.object_masks import class_mask
from visionlora.errors import InputError


def kinds(reading: MaskReading) -> list[str]:
    return [fault.kind for fault in reading.faults]


def sixteen(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint16)


WRITERS: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "index": lambda path, mask: save(path, mask),
    "palette": lambda path, mask: save(path, mask, "P"),
    "16-bit": lambda path, mask: save(path, sixteen(mask)),
    "colours": lambda path, mask: save(path, paint(mask)),
    "colours and alpha": lambda path, mask: save(path, np.dstack((paint(mask), np.full(mask.shape, 7, np.uint8)))),
    "grey and alpha": lambda path, mask: save(path, np.dstack((mask, np.full(mask.shape, 255, np.uint8)))),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_mask_reads_as_the_same_classes(tmp_path: Path, kind: str) -> None:
    images, masks = write_set(tmp_path)
    for seed in range(3):
        WRITERS[kind](masks / f"{seed}.png", labels(seed))
    data = read_masks(images, masks, COLORED)
    assert data.classes == ["road", "car", "wall"]
    assert [image.path.name for image in data.images] == ["0.jpg", "1.jpg", "2.jpg"]
    for index, image in enumerate(data.images):
        mask = class_mask(data, index)
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, labels(index))
        assert image.pixels == tuple(np.bincount(labels(index).ravel(), minlength=3))
        assert (image.width, image.height) == (WIDTH, HEIGHT)
    assert data.counts() == np.bincount(np.stack([labels(i) for i in range(3)]).ravel(), minlength=3).tolist()
    assert data.subset([2, 0]).counts() == np.add(data.images[0].pixels, data.images[2].pixels).tolist()


def test_16_bit_values_above_255_can_be_classes(tmp_path: Path) -> None:
    class_map = replace(CLASSES, values=((0, 0), (300, 1), (40000, 2), (65535, IGNORE)))
    path = save(tmp_path / "a.png", np.array([[0, 300], [40000, 65535]], np.uint16))
    assert read_mask(path, class_map).tolist() == [[0, 1], [2, IGNORE]]


def test_a_mask_of_one_bit_has_the_values_0_and_1(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[True, False]]))
    assert Image.open(path).mode == "1"
    assert read_mask(path, CLASSES).tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("images", "masks", "part"),
    [
        ("images", "masks", None),
        ("images", "labels", None),
        ("imgs", "masks", None),
        ("Images", "Annotations", None),
        ("JPEGImages", "SegmentationClass", None),
        ("images", "annotations/trimaps", None),
        ("img_dir/train", "ann_dir/train", "train"),
        ("leftImg8bit/val", "gtFine/val", "val"),
        ("Val", "Val_labels", "val"),
        ("train", "train_masks", "train"),
        ("train_images", "train_masks", "train"),
        ("images/validation", "masks/validation", "val"),
        ("valid/images", "valid/labels", "val"),
        ("images/monday", "masks/monday", "monday"),
        ("images/train", "annotations/train", "train"),
        ("train/images", "train/masks", "train"),
        ("train", "trainannot", "train"),
    ],
)
def test_known_layouts_are_found(tmp_path: Path, images: str, masks: str, part: str | None) -> None:
    save(tmp_path / images / "1.png", labels(1))
    save(tmp_path / masks / "1.png", labels(1))
    assert find_mask_folders(tmp_path, part) == MaskPlace(tmp_path / images, tmp_path / masks)


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(InputError, match=r"images with masks, .*\); it holds pictures; any two folders are given as"):
        find_mask_folders(tmp_path)
    with pytest.raises(InputError, match=r"images/train with masks/train, train/images with train/masks, "):
        find_mask_folders(tmp_path, "train")
    with pytest.raises(InputError, match=r"no such folder \(did you mean 'pictures'\?\)"):
        find_mask_folders(tmp_path / "picture")


def test_subfolders_pair_by_their_path(tmp_path: Path) -> None:
    images, masks = write_set(tmp_path)
    save(images / "monday" / "0.jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    save(masks / "monday" / "0.png", labels(9))
    data = read_masks(images, masks, CLASSES)
    assert [image.mask.relative_to(masks).as_posix() for image in data.images] == [  # type: ignore[union-attr]
        "0.png",
        "1.png",
        "2.png",
        "monday/0.png",
    ]


@pytest.mark.parametrize("folder", ["images", "masks", "images/masks"])
def test_masks_may_have_an_ending_to_their_names(tmp_path: Path, folder: str) -> None:
    images, masks = write_set(tmp_path)
    (tmp_path / folder).mkdir(exist_ok=True)
    for path in list(masks.glob("?.png")):
        path.rename(tmp_path / folder / f"{path.stem}_mask.png")
    data = read_masks(images, tmp_path / folder, CLASSES, suffix="_mask")
    assert [image.path.name for image in data.images] == ["0.jpg", "1.jpg", "2.jpg"]
    assert np.array_equal(class_mask(data, 1), labels(1))


def test_masks_below_the_images_are_no_images(tmp_path: Path) -> None:
    images, masks = write_set(tmp_path)
    moved = masks.rename(images / "masks")
    assert len(read_masks(images, moved, CLASSES)) == 3
    inner = images.rename(tmp_path / "set")
    assert len(read_masks(inner, inner / "masks", CLASSES)) == 3


Break = Callable[[Path, Path], object]


def one(value: int) -> Break:
    """Mask 1 with one pixel of another value."""

    def write(_images: Path, masks: Path) -> None:
        mask = labels(1)
        mask[3, 4] = value
        save(masks / "1.png", mask)

    return write


FAULTS: dict[str, tuple[str, Break, str]] = {
    "value": ("mask-value", one(3), r"value 3 \(in 1 pixel\) of no class; the classes are 3, from 'road' to 'wall'"),
    "16-bit value": (
        "mask-value",
        lambda images, masks: save(masks / "1.png", np.full((HEIGHT, WIDTH), 999, np.uint16)),
        r"value 999 \(in 96 pixels\)",
    ),
    "many values": (
        "mask-value",
        lambda images, masks: save(masks / "1.png", np.arange(96, dtype=np.uint8).reshape(HEIGHT, WIDTH)),
        r"values 3 \(in 1 pixel\), 4 .* and 89 more",
    ),
    "size": (
        "mask-size",
        lambda images, masks: save(masks / "1.png", labels(1)[:, :5]),
        "has 5 x 8, and 1.jpg 12 x 8; save it in the size of the image",
    ),
    "no mask": ("no-mask", lambda images, masks: (masks / "1.png").unlink(), "no mask '1' in .*masks; add it"),
    "no image": ("no-image", lambda images, masks: (images / "1.jpg").unlink(), "no image '1' in .*images; add it"),
    "grey as colours": (
        "assumed",
        lambda images, masks: save(masks / "1.png", np.repeat(labels(1)[..., None], 3, axis=2)),
        "is grey saved as RGB: its one channel is read",
    ),
    "colours": (
        "no-colors",
        lambda images, masks: save(masks / "1.png", paint(labels(1))),
        "is a colour picture; give each class its color",
    ),
    "JPEG": (
        "lossy-mask",
        lambda images, masks: save((masks / "1.png").rename(masks / "1.jpg"), labels(1)),
        "is a JPEG, which blurs values; save masks as PNG",
    ),
    "unreadable mask": ("broken-file", lambda images, masks: (masks / "1.png").write_bytes(b"no"), "not an image of"),
    "cut mask": (
        "broken-file",
        lambda images, masks: (masks / "1.png").write_bytes((masks / "1.png").read_bytes()[:60]),
        "can't be decoded",
    ),
    "empty mask": ("broken-file", lambda images, masks: (masks / "1.png").write_bytes(b""), "empty file"),
    "floating point": (
        "broken-file",
        lambda images, masks: save((masks / "1.png").rename(masks / "1.tif"), labels(1).astype(np.float32)),
        "is a F picture, which is no mask",
    ),
    "negative": (
        "broken-file",
        lambda images, masks: save((masks / "1.png").rename(masks / "1.tif"), labels(1).astype(np.int32) - 1),
        "holds values from -1 to 1",
    ),
    "broken link": ("broken-file", lambda images, masks: relink(masks / "1.png"), "no such file"),
    "unreadable image": (
        "unreadable",
        lambda images, masks: (images / "1.jpg").write_bytes(b""),
        "empty file; replace",
    ),
    "two images": (
        "same-name",
        lambda images, masks: save(images / "1.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8)),
        "1.jpg is there for '1' as well; remove one",
    ),
    "all ignored": (
        "all-ignored",
        lambda images, masks: save(masks / "1.png", np.full((HEIGHT, WIDTH), 255, np.uint8)),
        "no pixel has a class",
    ),
    "turned": (
        "exif-size",
        lambda images, masks: save(images / "1.jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8), orientation=6),
        r"has 12 x 8, and 1.jpg 8 x 12 as it is shown \(EXIF orientation 6\); turn the mask with it",
    ),
    "upside down": (
        "exif-unclear",
        lambda images, masks: save(images / "1.jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8), orientation=3),
        "1.jpg has EXIF orientation 3; its mask is taken to mean the image as it is shown",
    ),
}


def relink(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.png")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_and_training_refuses_it(tmp_path: Path, name: str) -> None:
    kind, spoil, message = FAULTS[name]
    images, masks = write_set(tmp_path)
    spoil(images, masks)
    reading = examine_mask_folders(MaskPlace(images, masks), CLASSES)
    assert kinds(reading) == [kind]
    (fault,) = reading.faults
    assert "1." in fault.file
    assert re.search(message, fault.message)
    if kind in REMARKS or kind in ("same-name", "mask-size", "exif-size"):
        assert len(reading.data) == 3
    else:
        assert [image.path.stem for image in reading.data.images] == ["0", "2"]
    if kind in ERRORS:
        with pytest.raises(InputError, match=message) as caught:
            read_masks(images, masks, CLASSES)
        assert "\n" not in str(caught.value)
    else:
        assert len(read_masks(images, masks, CLASSES)) == 3


def test_a_colour_that_is_no_class(tmp_path: Path) -> None:
    images, masks = write_set(tmp_path)
    picture = paint(labels(1))
    picture[2, 2] = picture[2, 3] = 1, 2, 3
    save(masks / "1.png", picture)
    reading = examine_mask_folders(MaskPlace(images, masks), COLORED)
    assert kinds(reading) == ["mask-color"]
    assert "color (1, 2, 3) (in 2 pixels) of no class" in reading.faults[0].message
    assert (1, 2, 3) not in COLORS
    with pytest.raises(InputError, match=r"color \(1, 2, 3\)"):
        read_mask(masks / "1.png", COLORED)


@pytest.mark.parametrize(
    ("value", "message"), [(1, "only 'car' occurs in 3 masks"), (255, r"no pixel has a class in 3 masks \(288 pixels")]
)
def test_masks_of_a_single_class(tmp_path: Path, value: int, message: str) -> None:
    images, masks = write_set(tmp_path)
    for seed in range(3):
        save(masks / f"{seed}.png", np.full((HEIGHT, WIDTH), value, np.uint8))
    with pytest.raises(InputError, match=message):
        read_masks(images, masks, CLASSES)
    assert "one-class" in kinds(examine_mask_folders(MaskPlace(images, masks), CLASSES))


def test_a_mask_of_0_and_255_is_told_what_it_lacks(tmp_path: Path) -> None:
    images, masks = write_set(tmp_path)
    for seed in range(3):
        save(masks / f"{seed}.png", np.where(labels(seed) == 1, 255, 0).astype(np.uint8))
    class_map = make_class_map(["ground", "person"])
    with pytest.raises(InputError, match=r"ignored: value 255; if that is a class, say so .*: values: \{255: person\}"):
        read_masks(images, masks, class_map)


def test_a_class_that_never_occurs_is_a_remark(tmp_path: Path) -> None:
    images, masks = write_set(tmp_path)
    reading = examine_mask_folders(MaskPlace(images, masks), make_class_map(["road", "car", "wall", "sky"]))
    assert kinds(reading) == ["unused-class"]
    assert "no mask shows 'sky'" in reading.faults[0].message


def test_unreadable_images_are_left_out_when_asked(tmp_path: Path) -> None:
    images, masks = write_set(tmp_path)
    (images / "1.jpg").write_bytes(b"")
    data = read_masks(images, masks, CLASSES, options=Options(skip_unreadable=True))
    assert [image.path.name for image in data.images] == ["0.jpg", "2.jpg"]


def test_all_faults_are_collected(tmp_path: Path) -> None:
    images, masks = write_set(tmp_path, 5)
    one(7)(images, masks)
    save(masks / "2.png", labels(2)[:4])
    (masks / "3.png").unlink()
    (masks / "4.png").write_bytes(b"")
    reading = examine_mask_folders(MaskPlace(images, masks), CLASSES)
    assert sorted(kinds(reading)) == ["broken-file", "mask-size", "mask-value", "no-mask"]
    assert [(image.path.name, image.fitted) for image in reading.data.images] == [("0.jpg", ""), ("2.jpg", "scaled")]
    with pytest.raises(InputError, match=r"4 faults \(.*1 x image without a mask.*; and 1 more\. Correct the masks"):
        read_masks(images, masks, CLASSES)


def test_an_unreadable_image_does_not_hide_what_is_wrong_with_its_mask(tmp_path: Path) -> None:
    images, masks = write_set(tmp_path)
    (images / "1.jpg").write_bytes(b"")
    one(7)(images, masks)
    assert kinds(examine_mask_folders(MaskPlace(images, masks), CLASSES)) == ["unreadable", "mask-value"]


@pytest.mark.parametrize("place", ["images", "masks"])
def test_a_folder_that_is_missing_or_a_file(tmp_path: Path, place: str) -> None:
    images, masks = write_set(tmp_path)
    folders = {"images": images, "masks": masks, place: tmp_path / "nothing"}
    with pytest.raises(InputError, match="no such folder; .* holds images, masks"):
        read_masks(folders["images"], folders["masks"], CLASSES)
    folders[place] = images / "0.jpg"
    with pytest.raises(InputError, match="is a file; a folder is needed"):
        read_masks(folders["images"], folders["masks"], CLASSES)


def test_folders_that_can_not_be_meant(tmp_path: Path) -> None:
    images, masks = write_set(tmp_path)
    with pytest.raises(InputError, match="is the folder of images and of masks"):
        read_masks(images, images, CLASSES)
    with pytest.raises(InputError, match=r"no image of .* has a mask; '0_m' is looked for, and nothing is there"):
        read_masks(images, masks, CLASSES, suffix="_m")
    for path in masks.iterdir():
        path.rename(path.with_stem(f"x{path.stem}y"))
    with pytest.raises(InputError, match=r"'0' is looked for, and x.y.png and 2 more is there; name masks like"):
        read_masks(images, masks, CLASSES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images in it"):
        read_masks(tmp_path / "empty", masks, CLASSES)
    (masks / "3.heic").write_bytes(b"")
    with pytest.raises(InputError, match="1 image in a format that isn't read"):
        read_masks(images, masks, CLASSES)


def test_progress_counts_images_and_masks(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    images, masks = write_set(tmp_path)
    read_masks(images, masks, CLASSES, options=Options(on_progress=lambda done, total: seen.append((done, total))))
    assert seen == [(done, 6) for done in range(1, 7)]


def test_a_mask_that_was_changed_after_reading_is_refused(tmp_path: Path) -> None:
    images, masks = write_set(tmp_path)
    data = read_masks(images, masks, CLASSES)
    save(masks / "1.png", labels(1)[:4])
    with pytest.raises(InputError, match="has 12 x 4 pixels, and its image 12 x 8"):
        class_mask(data, 1)
    one(9)(images, masks)
    with pytest.raises(InputError, match=r"1.png: value 9 \(in 1 pixel\) of no class"):
        class_mask(data, 1)


def test_camvid_has_no_fault(kit: Path) -> None:
    names = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
    place = find_mask_folders(kit / "data" / "camvid_jpg", "val")
    reading = examine_mask_folders(place, make_class_map(names, ignore=[11]))
    assert reading.faults == []
    assert len(reading.data) == 101
    assert (reading.data.images[0].width, reading.data.images[0].height) == (480, 360)
    assert min(reading.data.counts()) > 0
