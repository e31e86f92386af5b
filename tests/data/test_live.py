"""Live streams: what is cut off comes back, what is too slow to take is dropped, and nobody waits for ever."""

import re
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest

from helpers.clips import scene
from helpers.live_server import frames_of, second_of, served, transport_stream
from visionlora.data import live
from visionlora.data.live import LiveStream
from visionlora.data.live_address import file_name, is_live, shown_address
from visionlora.errors import InputError

FPS = 10


@pytest.fixture(autouse=True)
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "BACK_OFF", (0.05, 0.1))


@pytest.fixture(scope="module")
def pieces() -> list[bytes]:
    """Six seconds of a generated scene."""
    return transport_stream((scene(number, 192, 144) for number in range(6 * FPS)), FPS)


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_camera_that_is_cut_off_three_times_loses_no_later_second(kit: Path) -> None:
    video = kit / "data" / "pets2009_s2l1" / "vtest.avi"
    size, seconds, told = (384, 288), 24, []
    pieces = transport_stream(frames_of(video, seconds * FPS, size), FPS)
    with served(pieces, pause=0.12, cuts=[6, 12, 18]) as camera:
        seen: list[int] = []
        held: list[int] = []
        done = threading.Event()
        with LiveStream(camera.url, timeout=5, stop=done.is_set, tell=told.append) as stream:
            for frame in stream:
                assert frame.image.shape == (288, 384, 3)
                seen.append(second_of(frame.image))
                held.append(resident())
                if seen[-1] == seconds - 1:
                    done.set()
    assert [len(sent) for sent in camera.sent] == [6, 6, 6, 6]
    for sent in camera.sent[1:]:
        assert set(sent) <= set(seen), "a second after a reconnect is missing"
    assert seen == sorted(seen)
    assert stream.counts.reconnects == 3 and not stream.lost
    assert [re.sub(r".*Z (\w+ \w+).*", r"\1", line) for line in told] == ["connection lost", "connected again"] * 3
    # All frames together would be 40 MB decoded, and twice that as RGB.
    assert max(held[len(held) // 4 :]) - held[len(held) // 4] < 16e6


def test_frames_that_come_too_fast_are_dropped_and_counted(pieces: list[bytes]) -> None:
    with served(pieces, pause=0.05) as camera, LiveStream(camera.url, limit=1.2) as stream:
        taken = []
        for frame in stream:
            taken.append(frame)
            time.sleep(0.1)
    numbers = [frame.number for frame in taken]
    assert numbers == sorted(set(numbers))
    counts = stream.counts
    assert counts.frames >= 50 > len(taken)
    assert 0 < counts.dropped <= counts.frames - len(taken)
    assert counts.frames - counts.dropped - len(taken) <= live._WAITING
    assert [frame.seconds for frame in taken] == sorted(frame.seconds for frame in taken)
    assert (taken[-1].time - taken[0].time).total_seconds() == pytest.approx(
        taken[-1].seconds - taken[0].seconds, abs=0.05
    )


def test_every_nth_frame_is_asked_for_and_not_counted_as_dropped(pieces: list[bytes]) -> None:
    with served(pieces, pause=0.02) as camera, LiveStream(camera.url, every=10, limit=0.7) as stream:
        numbers = [frame.number for frame in stream]
    assert numbers == [number for number in range(60) if number % 10 == 0][: len(numbers)] and len(numbers) >= 5
    assert stream.counts.dropped == 0


def test_whoever_is_asked_to_stop_stops_though_no_frame_comes(pieces: list[bytes]) -> None:
    asked = threading.Event()
    with served(pieces[:3], pause=0) as camera, LiveStream(camera.url, stop=asked.is_set) as stream:
        threading.Timer(0.3, asked.set).start()
        started = time.monotonic()
        assert list(stream)
        assert time.monotonic() - started < 5  # and not the timeout's 10 s
    assert not stream.lost


def test_a_camera_that_stays_away_is_given_up(pieces: list[bytes]) -> None:
    told: list[str] = []
    with (
        served(pieces[:2], pause=0.05, cuts=[2]) as camera,
        LiveStream(camera.url, patience=0.4, timeout=0.3, tell=told.append) as stream,
    ):
        assert list(stream)
    assert stream.lost == "no answer within 0.3 s; is the address right, and the camera on?"
    assert stream.counts.reconnects == 0 and len(told) == 1


def test_a_reader_that_fails_ends_the_iteration(pieces: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise KeyError("http://me:secret@host")

    with served(pieces, pause=0.05) as camera, LiveStream(camera.url) as stream:
        monkeypatch.setattr(stream, "_put", fail)
        with pytest.raises(RuntimeError, match="reading it failed with KeyError") as caught:
            list(stream)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """A server that sends this and says no more, or never answers at all; its address, with a password."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while not over.is_set():
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    if answer is not None:
                        connection.recv(4096)
                        connection.sendall(answer)
                    else:
                        over.wait(20)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://me:secret@127.0.0.1:{server.getsockname()[1]}/1?token=secret"
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def refusal(address: str) -> str:
    """What entering says; nothing that a traceback shows has the password."""
    with pytest.raises(InputError) as caught, LiveStream(address, timeout=0.4):
        pass
    error = caught.value
    assert "secret" not in "".join(traceback.format_exception(error)) and "\n" not in str(error)
    assert error.__cause__ is None and "secret" not in repr(error.__context__)
    return str(error)


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.0 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def audio_only() -> bytes:
    target = BytesIO()
    with av.open(target, "w", format="mpegts") as out:
        stream = out.add_stream("aac", 48000, layout="mono")
        for number in range(60):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 48000, number * 1024
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return target.getvalue()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: None, "no answer within 0.4 s; is the address right, and the camera on?"),
        (lambda: http(b"<html>a page</html>"), "is no video of a known format"),
        (lambda: http(b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.ts\n"), "is no video of a known format"),
        (lambda: http(b"", "404 Not Found"), "404"),
        (lambda: http(b"", "401 Unauthorized"), "401"),
        (lambda: http(audio_only()), "holds no video that can be decoded"),
    ],
    ids=["silence", "page", "playlist", "missing", "password", "audio"],
)
def test_what_is_no_stream_ends_in_one_line(answer: Callable[[], bytes | None], said: str) -> None:
    with answering(answer()) as address:
        message = refusal(address)
    assert said in message
    assert message.startswith("http://***@127.0.0.1:") and "?***" in message


def test_addresses_that_can_not_be() -> None:
    assert "Connection refused" in refusal("rtsp://me:secret@127.0.0.1:1/x")
    assert "there is no such camera" in refusal("/dev/video97")
    assert "udp:// is not read" in refusal("udp://me:secret@127.0.0.1:1")
    assert "no address of a stream" in refusal("clip.mp4")
    assert [is_live(one) for one in ("clip.mp4", "/dev/video0", "rtsps://h/1", "/dev/video", "C:/x")] == [
        *(False, True, True, False, False)
    ]


def test_what_may_be_shown_and_stored_of_an_address() -> None:
    assert shown_address("rtsp://me:sec/ret@cam.local:554/1") == "rtsp://***@cam.local:554/1"
    assert file_name("rtsp://me:secret@cam.local:554/1?token=secret") == "cam.local-554-1"
    assert file_name("/dev/video0") == "dev-video0"
