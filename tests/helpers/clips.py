"""Small videos, and how far an image is from what it should be."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from visionlora.data.video_writer import VideoWriter

WIDTH, HEIGHT = 96, 64


def scene(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A grey ramp with a red block at the top left and a green one that moves with the frame number."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = np.linspace(60, 180, width, dtype=np.uint8)[None, :, None]
    image[: height // 4, : width // 4] = (200, 40, 40)
    left = number * 3 % (width - 16)
    image[height // 2 : height // 2 + 16, left : left + 16] = (40, 180, 60)
    return image


def encode(
    path: Path,
    frames: int = 30,
    codec: str = "libx264",
    rotation: int = 0,
    noise: int = 0,
    options: dict[str, str] | None = None,
    lost: int = 0,
    jump: tuple[int, int] = (0, 0),
    times: Sequence[int] | None = None,
    created: str = "",
) -> Path:
    """A video at 10 frames per second by PyAV alone; noise spreads its bytes over all frames.

    Args:
        options: of the codec.
        lost: so many packets at the beginning aren't written.
        jump: from this frame on the clock is so many frames later.
        times: of each frame, in tenths of a second.
        created: what the file says of when it was made.
    """
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 10, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.thread_count = 1  # the bytes would depend on the machine's cores
        if created:
            container.metadata["creation_time"] = created
        if rotation:
            stream.set_display_rotation(rotation)
        packets = []
        for number in range(frames):
            grain = rng.integers(-noise, noise + 1, (HEIGHT, WIDTH, 3))
            image = np.clip(scene(number) + grain, 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts = number + (jump[1] if jump[1] and number >= jump[0] else 0) if times is None else times[number]
            packets += stream.encode(frame)
        packets += stream.encode()
        container.mux(packets[lost:])
    return path


def interlaced(path: Path, codec: str, frames: int = 20, progressive: int = 0) -> Path:
    """A video whose frame n shows ``scene`` 4 n on the even lines and 4 n + 2 on the odd ones, but for the first few.

    Of ``progressive`` frames at the beginning both are 4 n, and the codec isn't told of any lines.
    """
    fields = {"x264-params": "tff=1"} if codec == "libx264" else {"flags": "+ilme+ildct"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 25, options=fields)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.thread_count = 1
        for number in range(frames):
            image = scene(4 * number)
            if number >= progressive:
                image[1::2] = scene(4 * number + 2)[1::2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path


def two_videos(path: Path, first: tuple[int, int], second: tuple[int, int], frames: int = 12) -> Path:
    """A file of two videos, of these widths and heights."""
    with av.open(str(path), "w") as container:
        streams = []
        for width, height in (first, second):
            stream = container.add_stream("libx264", 10)
            stream.width, stream.height, stream.pix_fmt, stream.thread_count = width, height, "yuv420p", 1
            streams.append(stream)
        for number in range(frames):
            for stream in streams:
                image = scene(number, stream.width, stream.height)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    return path


def write(path: Path, images: list[np.ndarray], fps: float = 10) -> Path:
    height, width = images[0].shape[:2]
    with VideoWriter(path, fps, (width, height)) as writer:
        for image in images:
            writer.write(image)
    return path


def difference(image: np.ndarray, expected: np.ndarray) -> float:
    """Mean over pixels and channels."""
    assert image.shape == expected.shape
    return float(np.abs(image.astype(int) - expected).mean())
