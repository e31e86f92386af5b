"""Small folders of images and masks, generated."""

from pathlib import Path

import numpy as np
from PIL import Image

from visionlora.data.segmentation.class_map import ClassEntry, ClassMap, make_class_map

WIDTH, HEIGHT = 12, 8
COLORS = ((128, 64, 128), (0, 0, 142), (70, 70, 70))
CLASSES = make_class_map(["road", "car", "wall"])
COLORED = make_class_map([ClassEntry(name, i, COLORS[i]) for i, name in enumerate(("road", "car", "wall"))])


def save(path: Path, pixels: np.ndarray, mode: str | None = None, orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette([9 * i % 256 for i in range(768)])  # colours that aren't the values
    image.save(path, exif=exif)
    return path


def labels(seed: int) -> np.ndarray:
    """(HEIGHT, WIDTH) uint8 of all three classes."""
    mask = np.random.default_rng(seed).integers(0, 3, (HEIGHT, WIDTH), dtype=np.uint8)
    mask[0, :3] = 0, 1, 2
    return mask


def write_set(root: Path, count: int = 3) -> tuple[Path, Path]:
    """``images/0.jpg`` ..., ``masks/0.png`` ...; their folders."""
    for seed in range(count):
        pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        save(root / "images" / f"{seed}.jpg", pixels)
        save(root / "masks" / f"{seed}.png", labels(seed))
    return root / "images", root / "masks"


def paint(mask: np.ndarray, class_map: ClassMap = COLORED) -> np.ndarray:
    """(H, W) classes -> (H, W, 3) uint8 in their colours."""
    assert class_map.colors is not None
    return np.array(class_map.colors, np.uint8)[mask]
