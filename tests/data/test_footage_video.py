"""What footage needs of a video: one frame for each second, where it went on, damaged spans, dates and safe sizes."""

import random
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from helpers.clips import HEIGHT, WIDTH, difference, encode, scene
from visionlora.data.video import DamagedVideo, Frame, VideoFrames
from visionlora.errors import InputError

IRREGULAR = sorted(random.Random(0).sample(range(200), 60))
"""Of a file whose frames come as they like."""


def first_of_each(times: list[float], period: float) -> list[int]:
    """The plain loop."""
    chosen: list[int] = []
    for number, time in enumerate(times):
        if not chosen or round(time * 1000) // round(period * 1000) > round(times[chosen[-1]] * 1000) // round(
            period * 1000
        ):
            chosen.append(number)
    return chosen


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("period", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("times", [list(range(60)), IRREGULAR], ids=["regular", "irregular"])
def test_the_first_frame_of_each_period(tmp_path: Path, suffix: str, period: float, times: list[int]) -> None:
    path = encode(tmp_path / f"a.{suffix}", 60, times=times)
    seconds = [(time - times[0]) / 10 for time in times]
    frames = list(VideoFrames(path, period=period))
    assert [frame.number for frame in frames] == first_of_each(seconds, period)
    assert [frame.seconds for frame in frames] == pytest.approx([seconds[frame.number] for frame in frames], abs=2e-3)
    assert all(difference(frame.image, scene(frame.number)) < 6 for frame in frames)


def test_a_clock_that_jumps_back_gives_each_second_one_frame(tmp_path: Path) -> None:
    part = encode(tmp_path / "part.ts", 30, options={"g": "12", "bf": "0"})
    whole = tmp_path / "whole.ts"
    whole.write_bytes(part.read_bytes() * 2)
    frames = list(VideoFrames(whole, period=1.0))
    assert [frame.number for frame in frames] == [0, 10, 20, 30, 40, 50]
    assert [frame.seconds for frame in frames] == pytest.approx([0, 1, 2, 3, 4, 5], abs=1e-2)


@pytest.mark.parametrize("after", [-1, 0, 7, 10, 59])
@pytest.mark.parametrize("thinning", [{"every": 4}, {"period": 0.7}])
def test_what_comes_after_a_frame_is_the_same(tmp_path: Path, after: int, thinning: dict[str, float]) -> None:
    path = encode(tmp_path / "a.mp4", 60)
    whole = [frame for frame in VideoFrames(path, **thinning) if frame.number > after]  # type: ignore[arg-type]
    rest = list(VideoFrames(path, **thinning, after=after))  # type: ignore[arg-type]
    assert [frame[:2] for frame in rest] == [frame[:2] for frame in whole]
    assert all(np.array_equal(one.image, other.image) for one, other in zip(rest, whole, strict=True))


def read(path: Path) -> tuple[list[Frame], list[tuple[float, float]]]:
    video, frames = VideoFrames(path), []
    with pytest.raises(DamagedVideo):
        for frame in video:
            frames.append(frame)
    return frames, video.damaged


@pytest.mark.parametrize(("suffix", "codec"), [("ts", "libx264"), ("mkv", "libx264"), ("mkv", "mpeg4")])
def test_reading_goes_on_behind_damage_and_its_spans_are_told(tmp_path: Path, suffix: str, codec: str) -> None:
    path = encode(tmp_path / f"a.{suffix}", 120, codec, noise=60, options={"g": "10", "bf": "0"})
    content = bytearray(path.read_bytes())
    zeros = [(int(place * len(content)), len(content) // 40) for place in (0.3, 0.7)]
    with av.open(str(path)) as container:
        packets = [
            (packet.pos, float(packet.pts * packet.time_base)) for packet in container.demux(video=0) if packet.size
        ]
    first = packets[0][1]
    for at, length in zeros:
        content[at : at + length] = bytes(length)
    path.write_bytes(content)
    frames, spans = read(path)
    times = [frame.seconds for frame in frames]
    assert times[-1] == pytest.approx(11.9, abs=0.01)
    # Each span holds what was overwritten, no frame that came lies within one, and none is missing elsewhere.
    assert len(spans) == 2
    for (start, end), (at, length) in zip(spans, zeros, strict=True):
        hit = [
            time - first
            for (position, time), (behind, _) in zip(packets, [*packets[1:], (len(content), 0)], strict=True)
            if position < at + length and behind > at
        ]
        assert start < hit[0] + 0.01 and hit[-1] - 0.01 < end < hit[-1] + 1.1
    assert not [time for time in times for start, end in spans if start + 0.01 < time < end - 0.01]
    gaps = [(one, other) for one, other in pairwise(times) if other - one > 0.15]
    assert np.array(gaps) == pytest.approx(np.array(spans))


def test_a_file_that_ends_early_is_damaged_to_its_end(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", 60, noise=60)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    frames, spans = read(path)
    assert len(spans) == 1 and spans[0][0] >= frames[-1].seconds and spans[0][1] == pytest.approx(6.0, abs=0.1)


def test_a_whole_file_has_no_span(tmp_path: Path) -> None:
    video = VideoFrames(encode(tmp_path / "a.mp4", 20))
    assert (len(list(video)), video.damaged) == (20, [])
    assert video.duration == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("created", "said"),
    [
        ("2024-05-31T12:00:00.000000Z", "2024-05-31T12:00:00+00:00"),
        ("", None),
        ("1970-01-01T00:00:00Z", None),
        ("soon", None),
    ],
)
def test_when_a_file_says_that_it_was_made(tmp_path: Path, created: str, said: str | None) -> None:
    found = VideoFrames(encode(tmp_path / "a.mp4", 3, created=created)).created
    assert (None if found is None else found.isoformat()) == said


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "rawvideo"])
def test_frames_of_more_pixels_than_are_safe_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    path = encode(tmp_path / "a.mkv", 3, codec)
    monkeypatch.setattr("visionlora.data.video._MOST_PIXELS", 1000 * 1000)
    assert len(list(VideoFrames(path))) == 3
    monkeypatch.setattr("visionlora.data.video._MOST_PIXELS", WIDTH * HEIGHT // 2)
    with pytest.raises(InputError, match=f"no frame of up to {WIDTH * HEIGHT // 2} pixels can be decoded"):
        VideoFrames(path)


def test_a_huge_size_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", 3, "rawvideo")
    content = path.read_bytes()
    at = content.index(b"strf") + 12  # of a BITMAPINFOHEADER: the width and the height
    path.write_bytes(content[:at] + (60000).to_bytes(4, "little") * 2 + content[at + 8 :])
    with pytest.raises(InputError, match="no frame of up to 67108864 pixels can be decoded"):
        VideoFrames(path)


@pytest.mark.parametrize(
    ("suffix", "codec", "name"),
    [("avi", "mpeg4", b"FMP4"), ("mp4", "libx264", b"avc1"), ("mkv", "libx264", b"V_MPEG4/ISO/AVC")],
)
def test_a_codec_that_nobody_knows(tmp_path: Path, suffix: str, codec: str, name: bytes) -> None:
    path = encode(tmp_path / f"a.{suffix}", 3, codec)
    path.write_bytes(path.read_bytes().replace(name, name[:-3] + b"zzz"))
    with pytest.raises(InputError, match="holds no video that can be decoded"):
        VideoFrames(path)


@pytest.mark.parametrize("period", [-1.0, float("inf"), float("nan")])
def test_a_period_is_a_number_of_seconds(tmp_path: Path, period: float) -> None:
    with pytest.raises(InputError, match="give a positive number"):
        VideoFrames(encode(tmp_path / "a.mp4", 3), period=period)
