"""Video: frames come as they were put in, upright and on time, and damage is told."""

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from helpers.clips import HEIGHT, WIDTH, difference, encode, scene, write
from visionlora.data.video import DamagedVideo, Frame, VideoFrames
from visionlora.errors import InputError


@pytest.mark.parametrize("fps", [10, 25, 30000 / 1001])
def test_frames_come_back_as_they_were_written(tmp_path: Path, fps: float) -> None:
    video = VideoFrames(write(tmp_path / "a.mp4", [scene(i) for i in range(40)], fps))
    assert (video.width, video.height, video.frame_count) == (WIDTH, HEIGHT, 40)
    assert video.fps == pytest.approx(fps, rel=1e-9)
    frames = list(video)
    assert [frame.number for frame in frames] == list(range(40))
    assert [frame.seconds for frame in frames] == pytest.approx([i / fps for i in range(40)], abs=1e-6)
    for number, _, image in frames:
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        assert difference(image, scene(number)) < 2 < difference(image, scene(number + 3))


@pytest.mark.parametrize(("every", "numbers"), [(1, list(range(11))), (3, [0, 3, 6, 9]), (10, [0, 10]), (99, [0])])
def test_every_nth_frame_is_the_same_as_in_the_whole(tmp_path: Path, every: int, numbers: list[int]) -> None:
    path = encode(tmp_path / "a.mp4", 11)
    whole = list(VideoFrames(path))
    thinned = list(VideoFrames(path, every))
    assert [frame.number for frame in thinned] == numbers
    for frame in thinned:
        assert frame.seconds == whole[frame.number].seconds
        assert np.array_equal(frame.image, whole[frame.number].image)
    with pytest.raises(InputError, match="the least is 1"):
        VideoFrames(path, 0)


def test_each_iteration_starts_anew(tmp_path: Path) -> None:
    video = VideoFrames(encode(tmp_path / "a.mp4", 6))
    assert next(iter(video)).number == 0
    first, second = iter(video), iter(video)
    next(first)
    assert next(first).number == 1
    assert next(second).number == 0
    assert len(list(video)) == 6


@pytest.mark.parametrize("suffix", ["mkv", "ts", "avi"])
def test_other_containers_are_read(tmp_path: Path, suffix: str) -> None:
    video = VideoFrames(encode(tmp_path / f"a.{suffix}", 20))
    assert video.frame_count == (20 if suffix == "avi" else None)
    assert video.fps == pytest.approx(10)
    frames = list(video)
    assert [frame.seconds for frame in frames] == pytest.approx([i / 10 for i in range(20)], abs=1e-3)
    assert all(difference(frame.image, scene(frame.number)) < 6 for frame in frames)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotated_frames_come_upright(tmp_path: Path, rotation: int) -> None:
    video = VideoFrames(encode(tmp_path / "a.mp4", 3, rotation=rotation))
    image = next(iter(video)).image
    assert image.shape == (video.height, video.width, 3)
    assert difference(image, np.rot90(scene(0), rotation // 90)) < 6


def test_a_phones_matrix_turns_clockwise(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", 3)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44  # ISO 14496-12: the box's type, version and flags, then 40 bytes before it
    one, minus_one, zero, unit = (value.to_bytes(4, "big", signed=True) for value in (1 << 16, -1 << 16, 0, 1 << 30))
    assert content[matrix : matrix + 36] == one + zero * 3 + one + zero * 3 + unit
    # x' = -y, y' = x: what lay to the right lies below
    content[matrix : matrix + 36] = zero + one + zero + minus_one + zero * 4 + unit
    path.write_bytes(content)
    image = next(iter(VideoFrames(path))).image
    assert image.shape == (WIDTH, HEIGHT, 3)
    red = image[: WIDTH // 5, -HEIGHT // 5 :].reshape(-1, 3).mean(axis=0)  # the top left is now the top right
    assert red[0] > red[1] + 100


def test_an_odd_turn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="turned by 4[45] degrees"):
        VideoFrames(encode(tmp_path / "a.mp4", 3, rotation=45))


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        VideoFrames(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "a.mp4")
    (tmp_path / "folder.mp4").mkdir()
    assert "a folder" in refusal(tmp_path / "folder.mp4")
    for name in ("text.mp4", "text.txt"):
        (tmp_path / name).write_text("this is no video\n" * 100)
        assert "no video of a known format" in refusal(tmp_path / name)
    (tmp_path / "empty.mp4").touch()
    assert "no video of a known format" in refusal(tmp_path / "empty.mp4")
    Image.fromarray(scene(0)).save(tmp_path / "image.png")
    assert "no video of a known format" in refusal(tmp_path / "image.png")


def test_a_playlist_is_not_followed(tmp_path: Path) -> None:
    encode(tmp_path / "a.ts", 20)
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "a.m3u8").write_text(playlist)
    (tmp_path / "a.mp4").write_text(playlist)
    assert "no video of a known format" in refusal(tmp_path / "a.m3u8")
    assert "no video of a known format" in refusal(tmp_path / "a.mp4")


def add_sound(container: Any) -> None:
    stream = container.add_stream("aac", 8000)
    sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    sound.sample_rate = 8000
    container.mux(stream.encode(sound))
    container.mux(stream.encode())


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        add_sound(container)
    assert "holds no video" in refusal(path)


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    path, cover = tmp_path / "a.mp4", io.BytesIO()
    Image.fromarray(scene(0)).save(cover, "jpeg")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg")
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        stream.disposition = av.stream.Disposition.attached_pic
        add_sound(container)
        packet = av.Packet(cover.getvalue())
        packet.stream, packet.pts, packet.dts = stream, 0, 0
        container.mux(packet)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    assert "holds no video" in refusal(path)


def read_on(path: Path) -> tuple[list[Frame], str]:
    """The frames before the error, and its message."""
    frames = []
    with pytest.raises(DamagedVideo) as caught:
        for frame in VideoFrames(path):
            frames.append(frame)
    message = str(caught.value)
    assert message.startswith(f"{path}: damaged ")
    assert "\n" not in message
    return frames, message


def overwritten(path: Path, length: int) -> None:
    """Zeros in the middle of the file."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + length] = bytes(length)
    path.write_bytes(content)


def cut(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])


@pytest.mark.parametrize("suffix", ["avi", "mkv", "ts"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_damage_in_the_middle_leaves_the_other_frames_and_is_told(tmp_path: Path, suffix: str, codec: str) -> None:
    path = encode(tmp_path / f"a.{suffix}", 60, codec, noise=60)
    whole = list(VideoFrames(path))
    overwritten(path, path.stat().st_size // 20)
    frames, message = read_on(path)
    assert 5 < len(frames) < 60
    assert message.endswith(f"{len(frames)}{' of 60' if suffix == 'avi' else ''} frames were read")
    first_fault = float(message.split("damaged ")[1].split(" s in")[0])
    assert 0.8 < first_fault < 7
    for number in range(8):
        assert frames[number][:2] == whole[number][:2]
        assert np.array_equal(frames[number].image, whole[number].image)


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_a_file_that_was_cut_off_is_told(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "mp4":
        write(path, [scene(i) for i in range(60)])  # its index comes first
    else:
        encode(path, 60, noise=60)
    whole = [frame.image for frame in VideoFrames(path)]
    cut(path, 0.6)
    frames, message = read_on(path)
    assert 2 < len(frames) < 55
    assert f"{len(frames)}{'' if suffix == 'mkv' else ' of 60'} frames were read" in message
    assert "a part is missing" in message or suffix == "mkv"
    for frame in frames:
        assert np.array_equal(frame.image, whole[frame.number])


def test_a_file_that_was_cut_off_between_two_frames_is_told(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", 60)
    with av.open(str(path)) as container:
        at = [packet.pos for packet in container.demux(video=0) if packet.pos is not None][30]
    path.write_bytes(path.read_bytes()[:at])
    frames, message = read_on(path)
    assert "it ends there, 6.0 s were announced" in message
    assert 25 <= len(frames) <= 31


def test_a_recording_without_its_index_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", 30)  # the index comes last
    cut(path, 0.8)
    assert "damaged at its start" in refusal(path)


def test_damage_shows_when_thinned_too(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", 60, "mpeg4", noise=60)
    overwritten(path, 40)
    with pytest.raises(DamagedVideo, match="damaged .*; 59 of 60 frames were read"):
        list(VideoFrames(path, every=50))


def test_the_first_frames_of_a_damaged_file_need_no_apology(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", 60, "mpeg4", noise=60)
    overwritten(path, 40)
    for frame in VideoFrames(path):
        if frame.number == 3:
            break
    assert frame.number == 3


def test_a_camera_on_a_campus(kit: Path) -> None:
    video = VideoFrames(kit / "data" / "pets2009_s2l1" / "vtest.avi", every=50)
    assert (video.width, video.height, video.fps, video.frame_count) == (768, 576, 10, 795)
    frames = list(video)
    assert [frame.number for frame in frames] == list(range(0, 795, 50))
    assert [frame.seconds for frame in frames] == pytest.approx([i / 10 for i in range(0, 795, 50)])
    assert all(frame.image.shape == (576, 768, 3) and frame.image.std() > 20 for frame in frames)
