"""A camera that is none: a video served over HTTP on the loopback address, paced, and cut off when asked."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import av
import numpy as np

BITS = 8
"""Blocks along the upper edge that tell a frame's second."""


def stamped(image: np.ndarray, second: int) -> np.ndarray:
    """The image with the second as white and black blocks along its upper edge."""
    marked = image.copy()
    side = image.shape[1] // BITS
    for bit in range(BITS):
        marked[:12, bit * side : (bit + 1) * side] = 255 if second >> bit & 1 else 0
    return marked


def second_of(image: np.ndarray) -> int:
    """The inverse of ``stamped``."""
    side = image.shape[1] // BITS
    return sum((image[2:10, bit * side + 4 : (bit + 1) * side - 4].mean() > 128) << bit for bit in range(BITS))


def transport_stream(images: Iterator[np.ndarray], fps: int) -> list[bytes]:
    """An MPEG transport stream of stamped images in pieces of a second, each of which begins with a key frame."""
    pieces: list[bytes] = []
    target = BytesIO()
    with av.open(target, "w", format="mpegts", options={"flush_packets": "1", "mpegts_flags": "resend_headers"}) as out:
        stream = out.add_stream("libx264", fps, options={"preset": "ultrafast", "tune": "zerolatency"})
        stream.gop_size, stream.pix_fmt, stream.thread_count = fps, "yuv420p", 1
        written = 0
        for number, image in enumerate(images):
            if number == 0:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(stamped(image, number // fps), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            if number and number % fps == 0:
                pieces.append(target.getvalue()[written:])
                written += len(pieces[-1])
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    pieces.append(target.getvalue()[written:])
    return pieces


@dataclass
class Camera:
    """What a served camera is doing.

    Attributes:
        url: its address.
        pieces: seconds of video.
        pause: seconds between two of them.
        cuts: after so many pieces in all a connection is cut off.
        sent: for each connection the seconds that were sent whole.
    """

    url: str
    pieces: list[bytes]
    pause: float
    cuts: list[int]
    sent: list[list[int]] = field(default_factory=list)


@contextmanager
def served(pieces: list[bytes], pause: float = 0.1, cuts: list[int] | None = None) -> Iterator[Camera]:
    """Serve the pieces from the first to the last, one connection going on where the one before was cut off."""
    camera = Camera("", pieces, pause, list(cuts or []))
    lock, over = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with lock:  # one viewer at a time
                self.send_response(200)
                self.send_header("Content-Type", "video/mp2t")
                self.end_headers()
                camera.sent.append([])
                done = sum(map(len, camera.sent))
                for second in range(done, len(pieces)):
                    try:
                        self.wfile.write(pieces[second])
                    except OSError:
                        return
                    camera.sent[-1].append(second)
                    if second + 1 in camera.cuts or over.wait(pause):
                        return
                over.wait(60)  # a camera never says that it has ended

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    camera.url = f"http://127.0.0.1:{server.server_address[1]}/live"
    try:
        yield camera
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def frames_of(path: Path, count: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The first frames of a video, (H, W, 3) uint8, at another width and height."""
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == count:
                return
            yield frame.reformat(width=size[0], height=size[1]).to_ndarray(format="rgb24")
