"""Pieces of a video hold every frame once, at its time, and each is whole when the next begins."""

from pathlib import Path

import av
import pytest

from helpers.clips import difference, scene
from visionlora.data.video import VideoFrames
from visionlora.data.video_pieces import VideoPieces


def test_pieces_hold_every_frame_at_its_time(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.35, 0.9, 1.0, 1.05, 1.0501, 2.5, 2.6]  # as they come, and not evenly
    with VideoPieces(fps=10, length=1.0) as pieces:
        for number, seconds in enumerate(times):
            pieces.write(scene(number), seconds, tmp_path / f"{number}.mp4")
            if number == 4:  # the first is there although the second has only begun
                assert [path.name for path in tmp_path.glob("[!.]*")] == ["0.mp4"]
    expected = {"0.mp4": (0, 4), "4.mp4": (4, 7), "7.mp4": (7, 9)}
    assert {path.name for path in tmp_path.iterdir()} == set(expected)
    for name, (start, end) in expected.items():
        frames = list(VideoFrames(tmp_path / name))
        assert len(frames) == end - start
        for frame, number in zip(frames, range(start, end), strict=True):
            assert frame.seconds == pytest.approx(times[number] - times[start], abs=0.0021)
            assert difference(frame.image, scene(number)) < 3


def test_another_size_begins_another_piece(tmp_path: Path) -> None:
    with VideoPieces(fps=10, length=60.0) as pieces:
        for number, width in enumerate((96, 96, 64, 96)):
            pieces.write(scene(number, width), number / 10, tmp_path / f"{number}.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.mp4", "2.mp4", "3.mp4"]
    assert VideoFrames(tmp_path / "2.mp4").width == 64


def test_what_fails_leaves_no_half_piece(tmp_path: Path) -> None:
    with pytest.raises(KeyError), VideoPieces(fps=10, length=1.0) as pieces:
        for number in range(15):
            pieces.write(scene(number), number / 10, tmp_path / f"{number}.mp4")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["0.mp4"]
    with av.open(str(tmp_path / "0.mp4")) as container:
        assert container.streams.video[0].frames == 10
    with VideoPieces(fps=10, length=1.0):
        pass
