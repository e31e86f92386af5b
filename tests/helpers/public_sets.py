"""Public data sets as their archives unpack, with few and small pictures of our own."""

from pathlib import Path

import numpy as np

from helpers.mask_sets import save

WIDTH, HEIGHT = 48, 36


def photo(path: Path, seed: int) -> Path:
    return save(path, np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def square(value: int, ground: int, border: int | None = None) -> np.ndarray:
    """(HEIGHT, WIDTH) uint8: a square of one value on another, with a border of a third."""
    mask = np.full((HEIGHT, WIDTH), ground, np.uint8)
    mask[8:28, 10:30] = value if border is None else border
    mask[10:26, 12:28] = value
    return mask


def write_pets(root: Path) -> None:
    """Oxford-IIIT Pet: photos in one folder, lists, trimaps, what macOS left beside them, and files of MATLAB."""
    lines: dict[str, list[str]] = {"trainval": [], "test": []}
    for breed, name in enumerate(("Abyssinian", "american_bulldog"), start=1):
        for number in range(1, 9):
            stem = f"{name}_{number}"
            photo(root / "images" / f"{stem}.jpg", 10 * breed + number)
            save(root / "annotations" / "trimaps" / f"{stem}.png", square(1, 2, border=3))
            (root / "annotations" / "trimaps" / f"._{stem}.png").write_bytes(b"Mac OS X")
            lines["trainval" if number < 7 else "test"].append(f"{stem} {breed} {breed} 1\n")
    (root / "images" / "Abyssinian_100.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    for part, listed in lines.items():
        (root / "annotations" / f"{part}.txt").write_text("".join(listed))
    head = "#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n"
    (root / "annotations" / "list.txt").write_text(head + "".join(lines["trainval"] + lines["test"]))


def write_voc(root: Path) -> None:
    """VOC2012's masks, of some of its images alone, and their lists."""
    names = [f"2007_{number:06d}" for number in range(12)]
    for seed, name in enumerate(names):
        photo(root / "JPEGImages" / f"{name}.jpg", 100 + seed)
        if seed < 8:
            save(root / "SegmentationClass" / f"{name}.png", square(15, 0, border=255))
            save(root / "SegmentationObject" / f"{name}.png", square(1, 0, border=255))
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for part, listed in {"train": names[:8:2], "val": names[1:8:2], "trainval": names[:8]}.items():
        (lists / f"{part}.txt").write_text("".join(f"{name}\n" for name in listed))


def write_camvid(root: Path) -> None:
    """CamVid of Cambridge: stills, colour masks with _L, and their colours."""
    colors = np.array([[128, 64, 128], [64, 0, 128], [0, 0, 0]], np.uint8)
    for number in range(10):
        name = f"0001TP_{6690 + 30 * number:06d}"
        photo(root / "701_StillsRaw_full" / f"{name}.png", 200 + number)
        save(root / "LabeledApproved_full" / f"{name}_L.png", colors[square(1, 0, border=2)])
    (root / "label_colors.txt").write_text("128 64 128\tRoad\r\n64 0 128\tCar\r\n0 0 0\t\tVoid\r\n")


def write_cityscapes(root: Path) -> None:
    """Cityscapes: three pictures for each image, by city and part; those of the test part show nothing."""
    for part, city in {"train": "aachen", "val": "frankfurt", "test": "berlin"}.items():
        for number in range(6):
            name = f"{city}_{number:06d}_000019"
            photo(root / "leftImg8bit" / part / city / f"{name}_leftImg8bit.png", 300 + 10 * len(city) + number)
            mask = square(26, 7, border=0) if part != "test" else square(0, 0)
            folder = root / "gtFine" / part / city
            save(folder / f"{name}_gtFine_labelIds.png", mask)
            save(folder / f"{name}_gtFine_instanceIds.png", mask.astype(np.uint16) * 1000)
            save(folder / f"{name}_gtFine_color.png", np.repeat(mask[..., None], 3, axis=2))
            (folder / f"{name}_gtFine_polygons.json").write_text('{"imgHeight": 36, "imgWidth": 48, "objects": []}')
