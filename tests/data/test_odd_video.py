"""What recorders leave, and is no damage: several streams, interlaced frames, a late beginning, clocks that jump."""

import weakref
from pathlib import Path

import numpy as np
import pytest

from helpers.clips import HEIGHT, WIDTH, difference, encode, interlaced, scene, two_videos
from visionlora.data.video import DamagedVideo, Frame, VideoFrames

GROUP = {"g": "12", "bf": "0"}
"""A key frame every twelve, and no frames that refer to later ones."""


def read(path: Path) -> tuple[list[Frame], list[str]]:
    video = VideoFrames(path)
    frames = list(video)
    assert all(remark.startswith(f"{path}: ") and "\n" not in remark for remark in video.remarks)
    return frames, [remark.removeprefix(f"{path}: ") for remark in video.remarks]


@pytest.mark.parametrize("small_first", [True, False])
def test_the_larger_of_two_videos_is_read(tmp_path: Path, small_first: bool) -> None:
    sizes = [(48, 32), (WIDTH, HEIGHT)] if small_first else [(WIDTH, HEIGHT), (48, 32)]
    frames, remarks = read(two_videos(tmp_path / "a.mp4", *sizes))
    assert (len(frames), remarks) == (12, [])
    for number, _, image in frames:
        assert difference(image, scene(number)) < 6


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mpg", "mpeg2video"), ("avi", "mpeg4")])
def test_interlaced_frames_are_deinterlaced_and_it_is_said(tmp_path: Path, suffix: str, codec: str) -> None:
    path = interlaced(tmp_path / f"a.{suffix}", codec)
    frames, remarks = read(path)
    assert [frame.number for frame in frames] == list(range(20))
    assert [frame.seconds for frame in frames] == pytest.approx([i / 25 for i in range(20)], abs=1e-3)
    assert len(remarks) == 1 and "interlaced" in remarks[0]
    moving = slice(HEIGHT // 2, HEIGHT // 2 + 16)
    distances, teeth = [], []
    for number, _, image in frames[1:]:
        first, second = _luma(scene(4 * number)), _luma(scene(4 * number + 2))
        combed = first.copy()
        combed[1::2] = second[1::2]
        shown = _luma(image)[moving]
        distances.append([float(np.abs(shown - moment[moving]).mean()) for moment in (first, second)])
        teeth.append(_teeth(shown) / _teeth(combed[moving]))
    # One moment, whichever the codec calls the first, and not two.
    near, far = sorted(np.mean(distances, axis=0))
    assert near < 0.6 * far
    assert np.mean(teeth) < 0.4
    again, _ = read(path)
    assert all(np.array_equal(one.image, other.image) for one, other in zip(frames, again, strict=True))


def _luma(image: np.ndarray) -> np.ndarray:
    """(H, W): colours are of both moments, for a line of them belongs to two of the picture's."""
    return image @ np.array([0.299, 0.587, 0.114])


def _teeth(lines: np.ndarray) -> float:
    """How much each line differs from the two around it."""
    return float(np.abs(lines[1:-1] - (lines[:-2] + lines[2:]) / 2).mean())


@pytest.mark.parametrize("every", [1, 3])
def test_thinning_interlaced_footage_takes_the_same_frames(tmp_path: Path, every: int) -> None:
    path = interlaced(tmp_path / "a.mp4", "libx264")
    whole, thinned = list(VideoFrames(path)), list(VideoFrames(path, every))
    assert [frame.number for frame in thinned] == list(range(0, 20, every))
    assert all(np.array_equal(frame.image, whole[frame.number].image) for frame in thinned)


def test_progressive_footage_has_no_remark(tmp_path: Path) -> None:
    for suffix in ("mp4", "mkv", "ts", "avi"):
        assert read(encode(tmp_path / f"a.{suffix}", 20))[1] == []


@pytest.mark.parametrize(
    ("suffix", "codec"), [("ts", "libx264"), ("mkv", "libx264"), ("ts", "mpeg4"), ("mkv", "mpeg4"), ("avi", "mpeg4")]
)
def test_a_file_that_begins_within_a_group_of_pictures(tmp_path: Path, suffix: str, codec: str) -> None:
    path = encode(tmp_path / f"a.{suffix}", 60, codec, options=GROUP, lost=5)
    frames, remarks = read(path)
    assert remarks == ["begins within a group of pictures; the 7 frames before the first key frame can't be decoded"]
    assert [frame.number for frame in frames] == list(range(48))
    assert [frame.seconds for frame in frames] == pytest.approx([i / 10 for i in range(48)], abs=1e-3)
    assert all(difference(image, scene(number + 12)) < 6 for number, _, image in frames)


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4"])
def test_a_clock_that_leaps_is_followed_and_named(tmp_path: Path, suffix: str) -> None:
    path = encode(tmp_path / f"a.{suffix}", 60, options=GROUP, jump=(30, 36000))
    frames, remarks = read(path)
    assert remarks == ["its clock jumps by +3600.1 s, 2.9 s in"]
    times = [i / 10 + 3600 * (i >= 30) for i in range(60)]
    assert [frame.seconds for frame in frames] == pytest.approx(times, abs=1e-2)
    assert all(difference(image, scene(number)) < 6 for number, _, image in frames)


def test_a_pause_is_no_jump(tmp_path: Path) -> None:
    """A recording that a movement starts has them."""
    frames, remarks = read(encode(tmp_path / "a.mkv", 60, options=GROUP, jump=(30, 80)))
    assert (len(frames), remarks) == (60, [])
    assert frames[30].seconds - frames[29].seconds == pytest.approx(8.1, abs=1e-2)


@pytest.mark.parametrize("options", [GROUP, {"g": "12"}], ids=["plain", "frames that refer to later ones"])
def test_a_clock_that_goes_back_is_named_and_time_goes_on(tmp_path: Path, options: dict[str, str]) -> None:
    """Two transport streams in one file, as recorders put them together."""
    part = encode(tmp_path / "part.ts", 30, options=options)
    whole = tmp_path / "whole.ts"
    whole.write_bytes(part.read_bytes() * 2)
    frames, remarks = read(whole)
    assert len(remarks) == 1 and remarks[0].startswith("its clock jumps by -2.9 s, 2.9 s in")
    assert [frame.seconds for frame in frames] == pytest.approx([i / 10 for i in range(60)], abs=1e-2)
    assert all(difference(image, scene(number % 30)) < 6 for number, _, image in frames)


def test_what_is_missing_for_long_is_still_damage(tmp_path: Path) -> None:
    """A gap that a fault explains is no clock's jump."""
    path = encode(tmp_path / "a.ts", 400, options=GROUP, noise=60)
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : 3 * len(content) // 4] = bytes(len(content) // 2)
    path.write_bytes(content)
    video = VideoFrames(path)
    with pytest.raises(DamagedVideo, match="damaged .* s in"):
        list(video)
    assert not [remark for remark in video.remarks if "clock" in remark]


def test_frames_are_not_kept(tmp_path: Path) -> None:
    """Memory doesn't grow with the length of what is read, deinterlaced or not."""
    for path in (encode(tmp_path / "a.mp4", 60), interlaced(tmp_path / "b.mp4", "libx264", 60)):
        references: list[weakref.ref[np.ndarray]] = []
        most = 0
        for frame in VideoFrames(path):
            references.append(weakref.ref(frame.image))
            most = max(most, sum(reference() is not None for reference in references))
        assert len(references) == 60
        assert most <= 3
