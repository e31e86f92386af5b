"""What is taken for class folders, and what never is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visionlora.data.checks.check_data import check
from visionlora.data.classification.class_folders import class_folders
from visionlora.data.classification.folder_labels import read_folder
from visionlora.errors import InputError


def photo(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def flat(path: Path, mode: str = "L", values: tuple[int, int] = (0, 1), smooth: bool = False) -> Path:
    """A mask: a square of one value on another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((30, 40), values[0], np.uint8)
    pixels[8:20, 10:30] = values[1]
    image = Image.fromarray(pixels)
    if smooth:
        image = image.resize((20, 15)).resize((40, 30), Image.Resampling.BILINEAR)
    if mode == "P":
        image.putpalette([value for i in range(256) for value in (37 * i % 256, 91 * i % 256, 5 * i % 256)])
    image.convert(mode).save(path)
    return path


def text(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("0 0.5 0.5 0.2 0.2")
    return path


def pairs(root: Path, images: str, masks: str, suffix: str = "", ending: str = ".png", **kind: object) -> None:
    for number in range(4):
        photo(root / images / f"{number}.jpg", number)
        flat(root / masks / f"{number}{suffix}{ending}", **kind)  # type: ignore[arg-type]


def photos_and(root: Path, images: str, labels: str, ending: str) -> None:
    for number in range(4):
        photo(root / images / f"{number}.jpg", number)
        text(root / labels / f"{number}{ending}")


OTHERS: dict[str, Callable[[Path], object]] = {
    "imgs and masks": lambda root: pairs(root, "imgs", "masks"),
    "images and labels of masks": lambda root: pairs(root, "images", "labels"),
    "names that tell nothing": lambda root: pairs(root, "foto", "wahrheit"),
    "palettes": lambda root: pairs(root, "a", "b", mode="P"),
    "0 and 255": lambda root: pairs(root, "a", "b", values=(0, 255)),
    "colours": lambda root: pairs(root, "a", "b", mode="RGB", values=(3, 200)),
    "smoothed": lambda root: pairs(root, "a", "b", values=(0, 255), smooth=True),
    "JPEG": lambda root: pairs(root, "a", "b", ending=".jpg", values=(0, 255)),
    "VOC's": lambda root: pairs(root, "JPEGImages", "SegmentationClass"),
    "CVAT's": lambda root: (pairs(root, "JPEGImages", "SegmentationClass"), (root / "ImageSets").mkdir()),
    "Cityscapes": lambda root: pairs(root, "leftImg8bit/train/a", "gtFine/train/a", "_labelIds"),
    "mmseg": lambda root: pairs(root, "img_dir/train", "ann_dir/train"),
    "labels of boxes": lambda root: photos_and(root, "bilder", "texte", ".txt"),
    "images and labels": lambda root: photos_and(root, "images", "labels", ".txt"),
    "XML apart": lambda root: photos_and(root, "fotos", "xml", ".xml"),
    "JSON beside": lambda root: (photos_and(root, "a", "a", ".json"), photos_and(root, "b", "b", ".json")),
    "masks beside": lambda root: (pairs(root, "ok", "ok", "_mask"), pairs(root, "ill", "ill", "_mask")),
    "Supervisely's": lambda root: (pairs(root, "one/img", "one/masks_machine"), pairs(root, "two/img", "two/ann")),
    "parts inside": lambda root: (photo(root / "set/train/car/1.jpg"), photo(root / "old/1.jpg")),
    "CamVid's": lambda root: pairs(root, "701_StillsRaw_full", "LabeledApproved_full", "_L"),
    "fastai's": lambda root: pairs(root, "images", "labels", "_P"),
    "a telling ending": lambda root: pairs(root, "a", "b", "_gtFine_labelIds", values=(7, 7)),
    "an ending that tells nothing": lambda root: pairs(root, "foto", "wahrheit", "-x"),
    "an empty folder of others": lambda root: (photo(root / "a/1.jpg"), (root / "ImageSets").mkdir()),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("part", ["", "train"])
def test_what_is_something_else_is_never_read_as_classes(tmp_path: Path, name: str, part: str) -> None:
    OTHERS[name](tmp_path / part)
    with pytest.raises(InputError, match="no class folders") as caught:
        read_folder(tmp_path / part)
    assert "\n" not in str(caught.value)
    assert "remove" not in str(caught.value)
    try:
        report = check(tmp_path)
    except InputError as error:
        assert "remove" not in str(error)
    else:
        assert report.layout != "folders"


def test_masks_of_other_images_are_named_with_what_to_use(tmp_path: Path) -> None:
    pairs(tmp_path, "stills", "labelled", "_L")
    with pytest.raises(InputError, match=r"labelled holds masks of the images in stills \(0.jpg, 0_L.png\)") as caught:
        read_folder(tmp_path)
    assert f"check-data {tmp_path} --classes FILE --suffix _L, and train a segmenter" in str(caught.value)
    assert "data.mask_suffix=_L" in str(caught.value)


CLASSES: dict[str, Callable[[Path], object]] = {
    "the same names": lambda root: [photo(root / name / f"{n}.jpg", n) for name in ("car", "van") for n in range(4)],
    "mask and no_mask": lambda root: [photo(root / name / "1.jpg") for name in ("mask", "no_mask")],
    "digits": lambda root: [flat(root / name / f"{n}.png") for name in "01" for n in range(4)],
    "flat ones in all": lambda root: [flat(root / name / f"{n}.png", values=(n, 9)) for name in "ab" for n in range(4)],
    "days inside": lambda root: [photo(root / name / "monday" / "1.jpg") for name in ("car", "van")],
    "notes": lambda root: [photo(root / "car/1.jpg"), photo(root / "van/1.jpg"), text(root / "van/notes.txt")],
    "a few texts": lambda root: (
        [photo(root / f"{c}/{n}.jpg") for c in "ab" for n in range(5)] + [text(root / "a/1.txt")]
    ),
    "numbers that begin alike": lambda root: (
        [photo(root / "a" / f"{n}.jpg", n) for n in (1, 2)] + [flat(root / "b" / f"{n}.png") for n in (10, 20)]
    ),
    "photos with an ending": lambda root: (
        [photo(root / f"{name}/{n}{end}.jpg", n) for n in range(4) for name, end in (("a", ""), ("b", "_l"))]
    ),
    "other names, other masks": lambda root: [photo(root / "a/1.jpg"), flat(root / "b/2.png")],
}


@pytest.mark.parametrize("name", CLASSES)
def test_class_folders_stay_class_folders(tmp_path: Path, name: str) -> None:
    CLASSES[name](tmp_path)
    assert len(class_folders(tmp_path)) == 2
    assert read_folder(tmp_path).classes == sorted(class_folders(tmp_path))
    assert check(tmp_path).layout == "folders"
