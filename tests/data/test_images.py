"""Reading image files, and finding the unreadable ones."""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from visionlora.data.images import check_readable, examine_images, find_unreadable, is_image, read_image
from visionlora.errors import InputError


def noise(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, image: np.ndarray, mode: str = "RGB", **options: Any) -> Path:
    Image.fromarray(image).convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "A.TIFF"])
def test_lossless_formats_come_back_exactly(tmp_path: Path, name: str) -> None:
    assert np.array_equal(read_image(save(tmp_path / name, noise())), noise())


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_lossy_formats_come_back_nearly(tmp_path: Path, name: str) -> None:
    smooth = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 3, (48, 1, 3))
    image = read_image(save(tmp_path / name, smooth, quality=95))
    assert image.shape == (48, 64, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - smooth).max() <= 6


def test_the_array_can_be_written_to(tmp_path: Path) -> None:
    assert read_image(save(tmp_path / "a.png", noise())).flags.writeable


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / "a.png", noise(), mode)
    with Image.open(path) as stored:
        expected = np.array(stored.convert("RGBA").convert("RGB"))
    image = read_image(path)
    assert image.shape == (40, 60, 3)
    assert np.array_equal(image, expected)


def test_palette_with_transparency_reads_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    palette = Image.fromarray(noise()).convert("P")
    palette.save(tmp_path / "a.png", transparency=bytes(range(256)))
    assert read_image(tmp_path / "a.png").shape == (40, 60, 3)
    assert not recwarn.list


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    white = np.full((16, 16, 3), 255, np.uint8)
    assert read_image(save(tmp_path / "a.jpg", white, "CMYK")).min() > 250


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_grey_is_scaled_by_its_range(tmp_path: Path, name: str) -> None:
    grey = np.array([[0, 257, 128 * 257], [65535, 300, 40000]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.shape == (2, 3, 3)
    assert image[:, :, 0].tolist() == [[0, 1, 128], [255, 1, 156]]
    assert np.array_equal(image[:, :, 0], image[:, :, 2])


def test_thirty_two_bit_grey_is_read_as_sixteen_bit_or_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 65535]], dtype=np.int32)).save(tmp_path / "fits.tif")
    Image.fromarray(np.array([[0, 65536]], dtype=np.int32)).save(tmp_path / "wide.tif")
    assert read_image(tmp_path / "fits.tif")[0, :, 0].tolist() == [0, 255]
    with pytest.raises(InputError, match=r"wide\.tif: holds 32-bit values from 0 to 65536"):
        read_image(tmp_path / "wide.tif")


def test_floating_point_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="floating point"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, name: str, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    grey = noise()[:, :, 0]
    stored = {"RGB": noise(), "L": grey, "I;16": grey.astype(np.uint16) * 257}[mode]
    Image.fromarray(stored).save(tmp_path / name, exif=exif)
    expected = noise() if mode == "RGB" else np.repeat(grey[:, :, None], 3, axis=2)
    upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a),
    }[orientation]
    assert np.array_equal(read_image(tmp_path / name), upright(expected))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.webp", "a.tif"])
def test_truncated_files_are_found_and_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, noise(200, 200))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    with pytest.raises(InputError, match=f"{name}: ") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    assert [found for found, _ in find_unreadable([path])] == [path]


def test_a_progressive_jpeg_cut_short_is_found(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", noise(200, 200), progressive=True)
    path.write_bytes(path.read_bytes()[:-2000])
    assert "truncated" in find_unreadable([path])[0][1]


def test_unreadable_files_are_listed_in_order_with_reasons(tmp_path: Path) -> None:
    good = save(tmp_path / "good.jpg", noise())
    text, empty, other = tmp_path / "text.jpg", tmp_path / "empty.png", tmp_path / "ppm.jpg"
    text.write_text("no image")
    empty.touch()
    Image.fromarray(noise()).save(other, format="PPM")
    absent = tmp_path / "absent.jpg"
    found = find_unreadable([text, good, empty, other, absent, tmp_path])
    assert [path for path, _ in found] == [text, empty, other, absent, tmp_path]
    reasons = [reason for _, reason in found]
    assert reasons[0] == reasons[2] == "not an image of a known format (JPEG, PNG, BMP, WEBP, TIFF, GIF)"
    assert reasons[1] == "empty file"
    assert reasons[3] == "no such file"
    assert "irectory" in reasons[4]


def test_progress_is_told_in_the_calling_thread(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{i}.png", noise()) for i in range(5)]
    told: list[tuple[int, int]] = []
    assert find_unreadable(paths, lambda done: told.append((done, threading.get_ident()))) == []
    assert told == [(done, threading.get_ident()) for done in range(1, 6)]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [100, 2000])
def test_too_many_pixels_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    path = save(tmp_path / "a.png", noise())  # 2400 pixels: over the limit, and over twice the limit
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(InputError, match=r"a\.png: .*pixels"):
        read_image(path)


def test_check_readable_refuses_or_returns_the_bad_ones(tmp_path: Path) -> None:
    good = save(tmp_path / "good.png", noise())
    bad = [tmp_path / f"bad{i}.jpg" for i in range(7)]
    for path in bad:
        path.write_bytes(b"\xff\xd8\xff nothing")
    assert check_readable([good, *bad], skip=True) == set(bad)
    assert check_readable([good], skip=False) == set()
    with pytest.raises(InputError) as caught:
        check_readable([good, *bad], skip=False)
    message = str(caught.value)
    assert message.startswith("7 images can't be read: ")
    assert "bad4.jpg" in message
    assert "bad5.jpg" not in message
    assert "and 2 more" in message
    assert "data.skip_unreadable=true" in message


def test_image_names_count_in_any_case() -> None:
    assert is_image(Path("a/B.JPeG"))
    assert not is_image(Path("a/jpg"))
    assert not is_image(Path("a/notes.txt"))


@pytest.mark.parametrize("name", ["a.gif", "a.jpg", "A.JPEG"])
def test_of_a_gif_the_first_picture_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / name, format="GIF", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / name) == (255, 0, 0)).all()
    assert is_image(tmp_path / name)


def test_cmyk_is_read_as_colours(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red = read_image(tmp_path / "a.jpg")
    assert red.shape == (8, 8, 3)
    assert (np.abs(red.astype(int) - (255, 0, 0)) <= 4).all()


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="is no regular file"):
        read_image(tmp_path / "a.jpg")
    assert [found.reason for found in examine_images([tmp_path / "a.jpg"])] == ["is no regular file"]
