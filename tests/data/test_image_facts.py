"""What is found out about an image file without keeping its pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visionlora.data.images import ImageFacts, examine_images, read_image


def save(path: Path, orientation: int, side: int = 6) -> Path:
    """A smooth picture of 100 * side x 400 pixels, as stored."""
    small = np.random.default_rng(0).integers(0, 256, (4, side, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(small).resize((100 * side, 400), Image.Resampling.BICUBIC).save(path, exif=exif)
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", range(10))
def test_size_and_orientation_are_those_of_the_image_as_read(tmp_path: Path, name: str, orientation: int) -> None:
    """0 and 9 are no orientations, and count as 1."""
    path = save(tmp_path / name, orientation)
    (facts,) = examine_images([path])
    height, width, _ = read_image(path).shape
    assert (facts.path, facts.width, facts.height, facts.reason) == (path, width, height, None)
    assert facts.orientation == (orientation if 1 <= orientation <= 8 else 1)


def test_fingerprints_are_of_the_image_as_shown_in_any_format(tmp_path: Path) -> None:
    def bits(first: ImageFacts, second: ImageFacts) -> int:
        return (int.from_bytes(first.fingerprint) ^ int.from_bytes(second.fingerprint)).bit_count()

    plain = save(tmp_path / "plain.png", 1)
    pixels = Image.open(plain)
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)  # shown, it is turned back
    again = tmp_path / "again.jpg"
    pixels.save(again)
    facts = examine_images([plain, turned, again, save(tmp_path / "other.png", 3)])
    assert bits(facts[0], facts[1]) == 0
    assert bits(facts[0], facts[2]) < 10
    assert bits(facts[0], facts[3]) > 60


def test_an_unreadable_file_has_a_reason_and_no_size(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", 1)
    path.write_bytes(path.read_bytes()[:-100])
    (facts,) = examine_images([path])
    assert facts.reason is not None
    assert "truncated" in facts.reason
    assert (facts.width, facts.height, facts.fingerprint) == (0, 0, b"")
