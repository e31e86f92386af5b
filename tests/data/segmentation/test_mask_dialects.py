"""Masks as tools write them: their names, values, colours and files of classes, and what is mended."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.mask_sets import CLASSES, COLORED, COLORS, HEIGHT, WIDTH, labels, paint, save, write_set
from visionlora.data.checks.check_data import check
from visionlora.data.checks.mask_survey import MaskFiles
from visionlora.data.segmentation.class_files import find_class_file, read_classes
from visionlora.data.segmentation.class_map import IGNORE
from visionlora.data.segmentation.mask_files import read_mask
from visionlora.data.segmentation.mask_folders import MaskPlace, find_mask_parts
from visionlora.data.segmentation.mask_reading import examine_mask_folders
from visionlora.data.segmentation.object_masks import class_mask
from visionlora.data.segmentation.split import load_segmented_split, read_segmented_part
from visionlora.errors import InputError
from visionlora.sections import SegmentationData

NAMES = "classes: [road, car, wall]"


def photo(path: Path, seed: int = 0) -> Path:
    return save(path, np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


FILES = {
    "labelmap.txt": "# label:color_rgb:parts:actions\nroad:128,64,128::\ncar:0,0,142:a,b:\nwall:70,70,70::\n",
    "class_dict.csv": "name,r,g,b\nroad,128,64,128\ncar, 0, 0, 142\nwall,70,70,70\n",
    "_classes.csv": "Pixel Value, Class\n0, road\n1, car\n2, wall\n",
    "label_colors.txt": "128 64 128\troad\r\n0 0 142\t\tcar\n70 70 70 wall\n",
    "classes.txt": "road\ncar\nwall\n",
    "codes.txt": "road\ncar\nwall",
    "classes.yaml": "values: {0: road, 1: car, 2: wall}",
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_classes_that_tools_write_are_found_and_read(tmp_path: Path, name: str) -> None:
    write_set(tmp_path)
    path = write(tmp_path, name, FILES[name])
    assert find_class_file(tmp_path) == path
    class_map = read_classes(path)
    assert (class_map.names, class_map.class_values()) == (CLASSES.names, [0, 1, 2])
    assert class_map.colors == (COLORS if name in ("labelmap.txt", "class_dict.csv", "label_colors.txt") else None)
    report = check(tmp_path)
    assert (report.layout, report.faults) == ("masks", [])
    split = load_segmented_split(SegmentationData(root=tmp_path))
    assert split.train.classes == list(CLASSES.names)


def test_supervisely_names_colours_and_not_the_background(tmp_path: Path) -> None:
    for name in ("one", "two"):
        photo(tmp_path / name / "img" / "1.jpg", ord(name[0]))
        save(tmp_path / name / "masks_machine" / "1.png", np.repeat(labels(1)[..., None], 3, axis=2))
    write(tmp_path, "obj_class_to_machine_color.json", '{"car": [1, 1, 1], "wall": [2, 2, 2]}')
    report = check(tmp_path)
    assert (report.layout, [part.name for part in report.parts], report.errors) == ("masks", ["one", "two"], [])
    counts = {name: count.pixels for name, count in report.parts[0].classes.items()}
    expected = np.bincount(labels(1).ravel(), minlength=3).tolist()
    assert counts == dict(zip(["background", "car", "wall"], expected, strict=True))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labelmap.txt", "road:1,2::\ncar:0,0,0::", "road:1,2::: give a colour as red, green, blue"),
        ("labelmap.txt", "road:1,2,300::\ncar:0,0,0::", "'300' is no number from 0 to 255"),
        ("label_colors.txt", "1 2 3 road\n1 2 300 car", "car: '300' is no number from 0 to 255"),
        ("class_dict.csv", "a,b\n1,2", "no columns name, r, g, b"),
        ("_classes.csv", "Pixel Value,Class\nx,road", "line 2: 'x' is no number"),
        ("obj_class_to_machine_color.json", "[1]", "holds no colours by name"),
        ("obj_class_to_machine_color.json", "[1", "is no JSON"),
        ("classes.yaml", "{classes: [a, b], values: {300000: a}}", "'values' has '300000'; give a number"),
        ("classes.yaml", "{classes: [a, bird], values: {255: bid}}", r"no class \(did you mean 'bird'\?\)"),
        ("classes.yaml", "{classes: [a, b], values: {0: b}}", "two classes have the value 0"),
        ("classes.yaml", "{classes: [a, b], values: [0]}", r"'values' is \['0'\]; give each value its class"),
    ],
)
def test_a_file_of_classes_that_can_not_be_meant(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_classes(write(tmp_path, name, text))
    assert "\n" not in str(caught.value)


def test_values_may_be_given_to_classes(tmp_path: Path) -> None:
    class_map = read_classes(write(tmp_path, "c.yaml", "{classes: [ground, person], values: {255: person}}"))
    mask = np.array([[0, 255, 7]], np.uint16)
    assert class_map.classes_of(mask).tolist() == [[0, 1, 254]]
    assert class_map.class_values() == [0, 255]
    several = read_classes(write(tmp_path, "c.yaml", "{classes: [ground, person], values: {1: person, 255: person}}"))
    assert several.classes_of(np.array([[0, 1, 255]], np.uint16)).tolist() == [[0, 1, 1]]
    assert several.class_values() == [0, 1]


def square(value: int = 255) -> np.ndarray:
    """(60, 80) uint8: of one value on 0."""
    mask = np.zeros((60, 80), np.uint8)
    mask[15:45, 20:50] = value
    return mask


def binary_set(root: Path, ending: str = ".png", smooth: bool = False, lossy: int = 0) -> Path:
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        save(root / "images" / f"{seed}.jpg", pixels)
        image = Image.fromarray(square())
        if smooth:
            image = image.resize((40, 30), Image.Resampling.BILINEAR).resize((80, 60), Image.Resampling.BILINEAR)
        (root / "masks").mkdir(exist_ok=True)
        options = {"quality": lossy} if lossy else {}
        image.convert("RGB" if lossy else "L").save(root / "masks" / f"{seed}{ending}", **options)
    write(root, "classes.yaml", "{classes: [ground, person], values: {255: person}}")
    return root


@pytest.mark.parametrize(("ending", "smooth", "lossy"), [(".png", True, 0), (".jpg", False, 60), (".jpg", True, 80)])
def test_smoothed_and_lossy_masks_are_rounded_if_asked(tmp_path: Path, ending: str, smooth: bool, lossy: int) -> None:
    root = binary_set(tmp_path, ending, smooth, lossy)
    errors = check(root).errors
    assert {fault.kind for fault in errors} == {"lossy-mask" if lossy else "mask-value"}
    assert all("data.round_masks=true (check-data --round-masks)" in fault.message for fault in errors)
    report = check(root, masks=MaskFiles(nearest=True))
    assert {fault.kind for fault in report.faults} <= {"rounded", "assumed", "leak"}
    data = load_segmented_split(SegmentationData(root=root, round_masks=True)).train
    for index in range(len(data)):
        wrong = class_mask(data, index) != (square() == 255)
        assert wrong.mean() < 0.02
    with pytest.raises(InputError, match="round_masks=true"):
        load_segmented_split(SegmentationData(root=root))


def test_rounding_takes_the_nearest_value_and_the_nearest_colour(tmp_path: Path) -> None:
    path = write(tmp_path, "c.yaml", "{classes: [{name: a, value: 10}, {name: b, value: 20}, {name: c, value: 200}]}")
    class_map = read_classes(path, nearest=True)
    row = np.concatenate([np.arange(11, 20), np.arange(100, 120), np.full(400, 10)]).astype(np.uint8)[None]
    save(tmp_path / "m.png", row)
    expected = [int(np.abs(np.array([10, 20, 200]) - value).argmin()) for value in row[0].tolist()]
    assert read_mask(tmp_path / "m.png", class_map)[0].tolist() == expected
    colors = read_classes(write(tmp_path, "labelmap.txt", FILES["labelmap.txt"]), nearest=True)
    noisy = paint(labels(1)).astype(int) + np.random.default_rng(0).integers(-20, 21, (HEIGHT, WIDTH, 3))
    save(tmp_path / "n.png", noisy.clip(0, 255).astype(np.uint8))
    assert (read_mask(tmp_path / "n.png", colors) == labels(1)).all()


def test_classes_that_are_too_near_are_not_rounded_to(tmp_path: Path) -> None:
    """The noise around 0 would be a class, and 255 be ignored."""
    path = write(binary_set(tmp_path, ".jpg", lossy=60), "classes.yaml", "classes: [ground, person]")
    with pytest.raises(InputError, match=r"'ground' and 'person' are 1 apart.*values: \{255: person\}"):
        check(tmp_path, masks=MaskFiles(nearest=True))
    with pytest.raises(InputError, match="are 1 apart"):
        load_segmented_split(SegmentationData(root=tmp_path, round_masks=True))
    # Colours are far apart, and values aren't: only colours are rounded.
    colors = read_classes(write(path.parent, "labelmap.txt", FILES["labelmap.txt"]), nearest=True)
    save(tmp_path / "m.png", np.array([[0, 1, 2, 3]], np.uint8))
    with pytest.raises(InputError, match="value 3"):
        read_mask(tmp_path / "m.png", colors)


def test_a_class_that_was_forgotten_is_not_rounded_away(tmp_path: Path) -> None:
    """It is no edge: it covers much of the mask, far from every value."""
    root = binary_set(tmp_path, smooth=True)
    mask = np.asarray(Image.open(root / "masks" / "1.png")).copy()
    mask[46:, :] = 128
    save(root / "masks" / "1.png", mask)
    (fault,) = check(root, masks=MaskFiles(nearest=True)).errors
    assert (fault.kind, "value 128 (in 1120 pixels)" in fault.message) == ("mask-value", True)


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "RGBA"])
def test_colours_are_read_from_pictures_and_from_palettes(tmp_path: Path, mode: str) -> None:
    """A palette in an order of its own: its colours say which class is meant."""
    colors = ((0, 0, 0), (255, 255, 255), (99, 99, 99)) if mode == "L" else COLORS
    lines = [f"{name}:{red},{green},{blue}::" for name, (red, green, blue) in zip("abc", colors, strict=True)]
    class_map = read_classes(write(tmp_path, "labelmap.txt", "\n".join(lines)))
    mask = labels(1)
    image = Image.fromarray(np.array(colors, np.uint8)[mask])
    if mode == "P":
        order = [2, 0, 1]
        image = Image.fromarray(np.array(order, np.uint8)[mask])
        palette = [(0, 0, 0)] * 3
        for label, entry in enumerate(order):
            palette[entry] = colors[label]
        image.putpalette([channel for color in palette for channel in color])
    image.convert(mode).save(tmp_path / "m.png")
    assert (read_mask(tmp_path / "m.png", class_map) == mask).all()


def test_a_palette_that_says_nothing_leaves_the_values(tmp_path: Path) -> None:
    save(tmp_path / "m.png", labels(1), "P")
    assert (read_mask(tmp_path / "m.png", COLORED) == labels(1)).all()


def test_pascal_voc_palettes_ignore_255_whatever_its_colour(tmp_path: Path) -> None:
    mask = labels(1)
    mask[4, 4] = 255
    image = Image.fromarray(mask)
    palette = [0] * 768
    palette[:9] = [channel for color in COLORS for channel in color]
    palette[765:] = [224, 224, 192]
    image.putpalette(palette)
    image.save(tmp_path / "m.png")
    found = read_mask(tmp_path / "m.png", COLORED)
    assert found[4, 4] == IGNORE
    assert (np.where(found == IGNORE, 255, found) == mask).all()


NAMINGS = {
    "_mask": ("{}.jpg", "{}_mask.png"),
    "-seg": ("{}.jpg", "{}-seg.png"),
    "CamVid's _L": ("a_{}.png", "a_{}_L.png"),
    "Cityscapes": ("{}_0_leftImg8bit.png", "{}_0_gtFine_labelIds.png"),
    "a word": ("image_{}.jpg", "mask_{}.png"),
    "a word inside": ("IMG_{}_x.jpg", "LABEL_{}_x.png"),
    "both with an ending": ("{}_image.jpg", "{}_label.png"),
}


@pytest.mark.parametrize("name", NAMINGS)
def test_masks_that_are_called_otherwise_are_found(tmp_path: Path, name: str) -> None:
    image, mask = NAMINGS[name]
    for seed in range(12):  # 1 is the beginning of 11
        photo(tmp_path / "images" / image.format(seed), seed)
        save(tmp_path / "masks" / mask.format(seed), labels(seed))
        if name == "Cityscapes":
            save(tmp_path / "masks" / f"{seed}_0_gtFine_color.png", paint(labels(seed)))
            save(tmp_path / "masks" / f"{seed}_0_gtFine_instanceIds.png", labels(seed))
    reading = examine_mask_folders(MaskPlace(tmp_path / "images", tmp_path / "masks"), CLASSES)
    assert [fault.kind for fault in reading.faults] == ["assumed"]
    assert len(reading.data) == 12
    for image_of_set in reading.data.images:
        seed = int(re.search(r"\d+", image_of_set.path.stem)[0])  # type: ignore[index]
        assert image_of_set.mask == tmp_path / "masks" / mask.format(seed)


def test_of_several_endings_one_must_be_named(tmp_path: Path) -> None:
    for seed in range(3):
        photo(tmp_path / "images" / f"{seed}.jpg", seed)
        for ending in ("labelIds", "labelTrainIds"):
            save(tmp_path / "masks" / f"{seed}_{ending}.png", labels(seed))
    place = MaskPlace(tmp_path / "images", tmp_path / "masks")
    with pytest.raises(InputError, match=r"several endings \(_labelIds, _labelTrainIds\); give the one that is meant"):
        examine_mask_folders(place, CLASSES)
    assert len(examine_mask_folders(place, CLASSES, "_labelIds").data) == 3


def test_roboflow_masks_lie_beside_the_images_of_each_part(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        for seed in range(3):
            photo(tmp_path / part / f"{seed}_jpg.rf.a1.jpg", seed + 9 * ord(part[0]))
            save(tmp_path / part / f"{seed}_jpg.rf.a1_mask.png", labels(seed))
        write(tmp_path / part, "_classes.csv", FILES["_classes.csv"])
    report = check(tmp_path)
    assert (report.layout, [(part.name, part.images) for part in report.parts]) == (
        "masks",
        [("train", 3), ("valid", 3), ("test", 3)],
    )
    assert not report.errors
    split = load_segmented_split(SegmentationData(root=tmp_path))
    assert (len(split.train), len(split.val)) == (3, 3)


@pytest.mark.parametrize("part", ["", "train"])
def test_two_folders_of_any_names_are_told_by_their_files(tmp_path: Path, part: str) -> None:
    """As CamVid is handed out: 701_StillsRaw_full and LabeledApproved_full, with label_colors.txt."""
    for seed in range(5):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        save(tmp_path / part / "stills" / f"a_{seed}.png", pixels)
        save(tmp_path / part / "done" / f"a_{seed}_L.png", paint(np.eye(40, 60, dtype=np.uint8)))
    message = r"stills with done.*classes: \[\{name: road, color: .* with each class's colour"
    with pytest.raises(InputError, match=message):
        check(tmp_path)
    write(tmp_path, "label_colors.txt", FILES["label_colors.txt"])
    report = check(tmp_path)
    assert (report.layout, [(found.name, found.images) for found in report.parts]) == ("masks", [(part, 5)])
    assert not report.errors
    assert ["'_L' at the end (data.mask_suffix)" in fault.message for fault in report.remarks].count(True) == 1
    split = load_segmented_split(SegmentationData(root=tmp_path))
    assert (len(split.train), len(split.val)) == (4, 1)


def write_voc(root: Path) -> None:
    """Of six images five have a mask and are in a list; most of VOC's have none."""
    for seed in range(6):
        photo(root / "JPEGImages" / f"{seed}.jpg", seed)
        if seed < 5:
            save(root / "SegmentationClass" / f"{seed}.png", labels(seed))
    for part, names in {"train": "0\n1\n2\n", "val": "3\r\n4\r\n", "trainval": "0\n1\n2\n3\n4\n"}.items():
        write(root / "ImageSets" / "Segmentation", f"{part}.txt", names)
    write(root, "classes.yaml", NAMES)


def test_lists_of_pascal_voc_count_where_folders_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_voc(tmp_path)
    monkeypatch.chdir(tmp_path)
    images, masks, classes = Path("JPEGImages"), Path("SegmentationClass"), Path("classes.yaml")
    report = check(images, masks=MaskFiles(classes, masks))
    assert ([(part.name, part.images) for part in report.parts], report.errors) == ([("train", 3), ("val", 2)], [])
    data = SegmentationData(images=images, masks=masks, classes=classes)
    for settings in (data, SegmentationData(root=tmp_path)):
        split = load_segmented_split(settings)
        assert [len(split.train), len(split.val)] == [3, 2]
        parts = {part: read_segmented_part(settings, part, list(CLASSES.names)) for part in ("train", "val", "all")}
        assert {part: len(images) for part, (images, _) in parts.items()} == {"train": 3, "val": 2, "all": 5}
    for part in ("train", "val"):
        Path("ImageSets/Segmentation", f"{part}.txt").unlink()
    split = load_segmented_split(data)
    assert [len(split.train), len(split.val)] == [4, 1]


def test_the_folder_below_the_one_that_was_given_is_named(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    write_voc(root)
    for read in (
        lambda: check(tmp_path, masks=MaskFiles(root / "classes.yaml")),
        lambda: load_segmented_split(SegmentationData(root=tmp_path, classes=root / "classes.yaml")),
    ):
        with pytest.raises(InputError, match=f"directly in it; give {root.parent} or {root}$"):
            read()
    report = check(root.parent, masks=MaskFiles(root / "classes.yaml"))  # as one of several data sets, with its lists
    assert ([(part.name, part.images) for part in report.parts], report.errors) == ([("VOC2012", 5)], [])


def test_lists_of_pascal_voc_are_parts_and_name_the_images(tmp_path: Path) -> None:
    write_voc(tmp_path)
    assert list(find_mask_parts(tmp_path)) == ["train", "val"]
    split = load_segmented_split(SegmentationData(root=tmp_path))
    assert ([len(split.train), len(split.val)], check(tmp_path).errors) == ([3, 2], [])


def test_without_a_file_of_classes_it_is_said_what_the_masks_hold(tmp_path: Path) -> None:
    write_set(tmp_path)
    with pytest.raises(InputError, match=r"holds images and masks \(images with masks\), and no file") as caught:
        check(tmp_path)
    assert "the first masks hold" in str(caught.value)
    assert all(str(value) in str(caught.value).partition("hold")[2] for value in (0, 1, 2))
    assert "values: {255: person}" in str(caught.value)


def spoilt(root: Path) -> Path:
    """A mask of half the size, one before EXIF rotation, one with a value of no class, and two without partners."""
    images, masks = write_set(root, 7)
    save(masks / "1.png", np.kron(labels(1), np.ones((2, 2), np.uint8)))
    save(images / "2.jpg", np.asarray(Image.open(images / "2.jpg")), orientation=6)
    (masks / "3.png").unlink()
    (images / "4.jpg").unlink()
    save(masks / "5.png", np.full((HEIGHT, WIDTH), 9, np.uint8))
    write(root, "classes.yaml", NAMES)
    return root


def test_a_mended_copy_of_masks(tmp_path: Path) -> None:
    root = spoilt(tmp_path / "set")
    before = {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    report = check(root, fix=tmp_path / "mended")
    assert sorted(fault.kind for fault in report.errors) == [
        "exif-size",
        "mask-size",
        "mask-value",
        "no-image",
        "no-mask",
    ]
    assert before == {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    mended = tmp_path / "mended"
    assert check(mended).errors == []
    assert sorted(path.stem for path in (mended / "images").iterdir()) == ["0", "1", "2", "6"]
    assert (read_mask(mended / "masks" / "1.png", CLASSES) == labels(1)).all()
    assert (read_mask(mended / "masks" / "2.png", CLASSES) == np.rot90(labels(2), -1)).all()
    assert len((mended / "changes.txt").read_text().splitlines()) == len(report.changes or []) == 5
    assert "mask scaled to 12 x 8 by the nearest neighbour" in (mended / "changes.txt").read_text()
    assert (mended / "images" / "0.jpg").read_bytes() == (root / "images" / "0.jpg").read_bytes()


def test_a_mended_copy_keeps_parts_colours_and_what_is_ignored(tmp_path: Path) -> None:
    for part in ("train", "val"):
        _, masks = write_set(tmp_path / "old" / part)
        for seed in range(3):
            picture = paint(labels(seed))
            picture[5, 5] = 9, 9, 9
            save(masks / f"{seed}.png", picture)
    (tmp_path / "old" / "train" / "masks" / "1.png").unlink()
    named = zip(CLASSES.names, COLORS, strict=True)
    entries = [f"{{name: {name}, color: [{red}, {green}, {blue}]}}" for name, (red, green, blue) in named]
    entries.append("{name: x, color: [9, 9, 9]}")
    write(tmp_path / "old", "classes.yaml", f"classes: [{', '.join(entries)}]\nignore: x")
    check(tmp_path / "old", fix=tmp_path / "new")
    report = check(tmp_path / "new")
    assert ([(part.name, part.images, part.ignored_pixels) for part in report.parts], report.errors) == (
        [("train", 2, 2), ("val", 3, 3)],
        [],
    )
    class_map = read_classes(tmp_path / "new" / "classes.yaml")
    assert (class_map.names, class_map.colors) == (CLASSES.names, COLORS)


def test_single_faults_are_passed_over_if_asked_and_told(tmp_path: Path) -> None:
    root = spoilt(tmp_path)
    with pytest.raises(InputError, match=r"5 faults .*data.faulty=leave_out"):
        load_segmented_split(SegmentationData(root=root))
    data = SegmentationData(root=root, faulty="leave_out")
    split = load_segmented_split(data)
    kept = [*split.train.images, *split.val.images]
    assert [image.path.stem for image in kept] == ["0", "1", "2", "6"]
    assert len(split.faulty) == 5
    assert all(" -> " in line for line in split.faulty)
    whole, _ = read_segmented_part(data, "all", list(CLASSES.names))
    assert (class_mask(whole, 1) == labels(1)).all()
    assert (class_mask(whole, 2) == np.rot90(labels(2), -1)).all()
    assert [sum(image.pixels) for image in whole.images] == [WIDTH * HEIGHT] * 4
