"""A written video is whole or absent, and looks like its frames."""

import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from helpers.clips import HEIGHT, WIDTH, difference, encode, scene, write
from visionlora.data.video import VideoFrames
from visionlora.data.video_writer import VideoWriter
from visionlora.errors import InputError


def test_colours_survive(tmp_path: Path) -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128], [230, 120, 30]], np.uint8)
    image = np.repeat(np.repeat(colours[None], 48, axis=0), 32, axis=1)
    path = write(tmp_path / "a.mp4", [image] * 5)
    found = list(VideoFrames(path))[2].image[24, 16::32]
    assert np.abs(found.astype(int) - colours).max() <= 5
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (1, 1, 1)  # BT.709, so that players agree


@pytest.mark.parametrize("use", [lambda path: VideoFrames(path), lambda path: VideoWriter(path, 10, (8, 8))])
def test_without_pyav_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[Path], Any]
) -> None:
    path = encode(tmp_path / "a.mp4", 2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install visionlora\[video\]"):
        use(path)
    assert list(tmp_path.iterdir()) == [path]


def test_pyav_is_imported_when_it_is_needed() -> None:
    code = "import sys, visionlora.data.video_writer; assert 'av' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("size", [(64, 48), (65, 48), (64, 47), (31, 17), (1, 1)])
def test_odd_sides_are_extended_by_one(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    image = np.full((height, width, 3), 60, np.uint8)
    image[:, width // 2 :] = 180
    video = VideoFrames(write(tmp_path / "a.mp4", [image] * 3))
    assert (video.width, video.height) == (width + width % 2, height + height % 2)
    found = next(iter(video)).image
    assert difference(found[:height, :width], image) < 6
    assert abs(int(found[-1, -1, 0]) - 180) < 6  # the edge is repeated, not black


@pytest.mark.parametrize("codec", ["h264", "mpeg4"])
def test_fine_grain_survives_with_either_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str) -> None:
    path = tmp_path / "a.mp4"
    grain = np.random.default_rng(0).normal(0, 40, (240, 360, 1))
    image = np.clip(scene(0, 360, 240) + grain, 0, 255).astype(np.uint8)
    if codec == "mpeg4":
        monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    write(path, [np.roll(image, 3 * i, axis=1) for i in range(20)])
    monkeypatch.undo()
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == codec
    for frame in VideoFrames(path):
        assert difference(frame.image, np.roll(image, 3 * frame.number, axis=1)) < 4


def test_h264_is_written_with_its_index_first(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", [scene(i) for i in range(20)])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == Fraction(10)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_a_video_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.mp4"
    with VideoWriter(path, 10, (WIDTH, HEIGHT)) as writer:
        for number in range(20):
            writer.write(scene(number))
        assert not path.exists()
        assert len(list(path.parent.iterdir())) == 1  # beside it, so that it can be renamed
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644
    assert len(list(VideoFrames(path))) == 20


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_video_that_fails_midway_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("old")
    with pytest.raises(error), VideoWriter(path, 10, (WIDTH, HEIGHT)) as writer:
        writer.write(scene(0))
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_video_without_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no frame"), VideoWriter(tmp_path / "a.mp4", 10, (8, 8)):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((HEIGHT, WIDTH + 2, 3), np.uint8),
        np.zeros((HEIGHT, WIDTH, 4), np.uint8),
        np.zeros((HEIGHT, WIDTH), np.uint8),
        np.zeros((HEIGHT, WIDTH, 3), np.float32),
    ],
)
def test_an_image_of_another_size_or_type_is_refused(tmp_path: Path, image: np.ndarray) -> None:
    with (
        pytest.raises(InputError, match=r"a.mp4: frame 1 is \w+ of shape .* uint8 of shape \(64, 96, 3\)"),
        VideoWriter(tmp_path / "a.mp4", 10, (WIDTH, HEIGHT)) as writer,
    ):
        writer.write(scene(0))
        writer.write(image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "fps", "size", "message"),
    [
        ("a.avi", 10, (8, 8), "let the name end in .mp4"),
        ("a.mp4", 0, (8, 8), "0 frames per second"),
        ("a.mp4", float("nan"), (8, 8), "nan frames per second"),
        ("a.mp4", float("inf"), (8, 8), "inf frames per second"),
        ("a.mp4", 10, (0, 8), "0 x 8 pixels"),
        ("folder.mp4", 10, (8, 8), "a folder"),
    ],
)
def test_a_video_that_cannot_be_is_refused(
    tmp_path: Path, name: str, fps: float, size: tuple[int, int], message: str
) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(InputError, match=message):
        VideoWriter(tmp_path / name, fps, size)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.mp4"]
