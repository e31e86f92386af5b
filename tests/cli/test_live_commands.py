"""``predict`` on live streams, and on footage with tracks, zones, lines and pieces."""

import json
import os
import re
import signal
import socket
import threading
import time
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from helpers.clips import HEIGHT, WIDTH, encode, scene
from helpers.finders import find_blocks, write_finder
from helpers.live_server import served, transport_stream
from helpers.squares import Command
from visionlora.cli.durations import seconds_of
from visionlora.data import live
from visionlora.data.video import VideoFrames
from visionlora.errors import InputError

FPS = 10
needs_track = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("trackers", "supervision")),
    reason="trackers and supervision, the extra track, are not installed",
)


@pytest.fixture(scope="module")
def pieces() -> list[bytes]:
    """Five seconds of a generated scene."""
    return transport_stream((scene(number, 192, 144) for number in range(5 * FPS)), FPS)


@pytest.fixture
def finder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A detector's file, with a model that finds blocks by their colour."""
    monkeypatch.setattr("visionlora.tasks.detection.task.predict_detections", find_blocks)
    return write_finder(tmp_path)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_stream_is_classified_as_it_comes_and_a_signal_keeps_what_was_found(
    visionlora: Command, trained: Path, pieces: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "BACK_OFF", (0.05,))
    out = tmp_path / "found.jsonl"
    with served(pieces, pause=0.1, cuts=[2]) as camera:

        def stop_when_all_is_sent() -> None:
            end = time.monotonic() + 10
            while sum(map(len, camera.sent)) < len(pieces) and time.monotonic() < end:
                time.sleep(0.02)
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGTERM)

        watching = threading.Thread(target=stop_when_all_is_sent, daemon=True)
        watching.start()
        address = camera.url.replace("http://", "http://me:secret@") + "?token=secret"
        outcome = visionlora("predict", trained, address, "--out", out, "--top", 1)
        watching.join()
    assert (outcome.code, outcome.err) == (0, "")
    assert "secret" not in outcome.out + out.read_text()
    found, port = lines_of(out), camera.url.split(":")[-1].split("/")[0]
    numbers = [int(entry["image"].rpartition("#")[2]) for entry in found]
    assert numbers == sorted(set(numbers)) and len(found) >= 5
    assert {entry["image"].rpartition("#")[0] for entry in found} == {f"http://***@127.0.0.1:{port}/live?***"}
    arrived = [datetime.fromisoformat(entry["time"]) for entry in found]
    assert arrived == sorted(arrived) and arrived[0].utcoffset().total_seconds() == 0  # type: ignore[union-attr]
    for entry, when in zip(found, arrived, strict=True):
        passed = (when - arrived[0]).total_seconds()
        assert entry["seconds"] - found[0]["seconds"] == pytest.approx(passed, abs=0.05)
    assert "connection lost" in outcome.out and "connected again after" in outcome.out
    assert re.search(
        rf"{len(found)} frames in \d+ s, [\d.]+ frames/s, \d+ dropped, connected again 1 times", outcome.out
    )


def test_lines_are_added_to_those_of_another_time(
    visionlora: Command, trained: Path, pieces: list[bytes], tmp_path: Path
) -> None:
    out = tmp_path / "found.jsonl"
    out.write_text('{"before": 1}\n')
    with served(pieces, pause=0.05) as camera:
        assert visionlora("predict", trained, camera.url, "--out", out, "--for", "200ms").code == 0
    found = lines_of(out)
    assert found[0] == {"before": 1} and len(found) > 1
    out.write_text('{"half": ')
    with served(pieces, pause=0.05) as camera:
        refused = visionlora("predict", trained, camera.url, "--out", out, "--for", "200ms")
    assert refused.code == 2 and "ends within a line" in refused.err and out.read_text() == '{"half": '


@needs_track
def test_a_detectors_stream_is_tracked_counted_and_drawn_in_pieces(
    visionlora: Command,
    finder: Path,
    pieces: list[bytes],
    tmp_path: Path,
) -> None:
    out, drawn = tmp_path / "found.jsonl", tmp_path / "drawn"
    with served(pieces, pause=0.1) as camera:
        outcome = visionlora(
            *("predict", finder, camera.url, "--out", out, "--draw", drawn, "--for", "800ms", "--pieces", "200ms"),
            *("--track", "--zone", "left=0,0,96,0,96,144,0,144", "--line", "middle=96,144,96,0"),
        )
    assert (outcome.code, outcome.err) == (0, "")
    found = lines_of(out)
    assert {entry["track_id"] for entry in found if entry["category_id"] == 2} <= {None, 0, 1}
    assert all(entry["zones"] == ["left"] for entry in found if entry["category_id"] == 2)
    assert {entry["category_id"] for entry in found} == {1, 2}
    files = sorted(drawn.rglob("*.mp4"))
    assert len(files) >= 2 and all(re.fullmatch(r"\d{8}T\d{6}\.\d{6}Z\.mp4", path.name) for path in files)
    numbers = {entry["image_id"] for entry in found}
    assert sum(len(list(VideoFrames(path))) for path in files) == len(numbers)
    assert "zone left:" in outcome.out and "line middle:" in outcome.out


@needs_track
def test_a_videos_objects_are_tracked_and_counted(visionlora: Command, finder: Path, tmp_path: Path) -> None:
    clip, out, drawn = encode(tmp_path / "clip.mp4", 26), tmp_path / "found.json", tmp_path / "drawn"
    outcome = visionlora(
        *("predict", finder, clip, "--out", out, "--draw", drawn, "--pieces", "1s"),
        # The red block stands at the upper left; the green one goes 3 pixels to the right in each frame.
        *("--zone", f"left=0,0,{WIDTH // 2},0,{WIDTH // 2},{HEIGHT},0,{HEIGHT}"),
        *("--line", f"middle={WIDTH // 2},{HEIGHT},{WIDTH // 2},0"),
    )
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(out.read_text())
    green, red = ([entry for entry in found if entry["category_id"] == number] for number in (1, 2))
    assert len(green) == len(red) == 26
    assert [entry["seconds"] for entry in green] == pytest.approx([number / 10 for number in range(26)], abs=1e-3)
    assert all(entry["zones"] == ["left"] for entry in red)
    feet = [entry["bbox"][0] + entry["bbox"][2] / 2 for entry in green]
    assert [bool(entry["zones"]) for entry in green] == [x < WIDTH // 2 for x in feet]
    ids = [{entry["track_id"] for entry in one[1:]} for one in (green, red)]
    assert all(len(one) == 1 for one in ids) and ids[0] != ids[1]
    crossings = [entry["crossed"] for entry in found if entry["crossed"]]
    assert crossings == [{"middle": "out"}]  # to the right of one who looks up the line
    assert "zone left: 1 at last, 2 at most, 2 came in" in outcome.out
    assert "line middle: 0 in, 1 out" in outcome.out
    videos = sorted((drawn / "clip").iterdir())
    assert [path.name for path in videos] == ["000000.000s.mp4", "000001.000s.mp4", "000002.000s.mp4"]
    assert [len(list(VideoFrames(path))) for path in videos] == [10, 10, 6]
    assert next(iter(VideoFrames(videos[0]))).image.shape == (HEIGHT, WIDTH, 3)


def test_classes_have_thresholds_and_small_objects_are_left_out(
    visionlora: Command,
    finder: Path,
    tmp_path: Path,
) -> None:
    clip = encode(tmp_path / "clip.mp4", 3)

    def classes(*options: object) -> set[int]:
        out = tmp_path / "found.json"
        outcome = visionlora("predict", finder, clip, "--out", out, *options)
        assert (outcome.code, outcome.err) == (0, "")
        return {entry["category_id"] for entry in json.loads(out.read_text())}

    assert classes() == {1, 2}
    assert classes("--threshold", "red=0.7") == {1}
    assert classes("--min-score", "0.95", "--threshold", "red=0.5") == {2}
    assert classes("--min-size", 18) == {2}  # the green block has 16 x 16 pixels, the red one 24 x 16
    assert classes("--min-size", 15) == {1, 2}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rtsp://127.0.0.1:1/x",), "rtsp://127.0.0.1:1/x: can't be opened (Connection refused)"),
        (("/dev/video97",), "there is no such camera"),
        (("udp://me:secret@127.0.0.1",), "udp:// is not read"),
        (("rtsp://127.0.0.1:1/x", "rtsp://127.0.0.1:1/y"), "give it alone"),
        (("rtsp://127.0.0.1:1/x", "--out", "x.json"), "end it in .jsonl"),
        (("rtsp://127.0.0.1:1/x", "--track"), "--track is for detectors, and"),
        (("rtsp://127.0.0.1:1/x", "--for", "soon"), "--for soon: is no time"),
        (("{image}", "--for", "1h"), "--for is for live streams, and none is given"),
        (("{image}", "--pieces", "1h"), "--pieces is for videos and live streams, and none is given"),
        (("{image}", "--zone", "a=1,2"), "--zone a=1,2: is not NAME="),
        (("{image}", "--threshold", "red"), "--threshold red: is not CLASS=SCORE"),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(
    visionlora: Command, trained: Path, squares: Path, arguments: tuple[str, ...], said: str
) -> None:
    image = next((squares / "val").rglob("*.png"))
    refused = visionlora("predict", trained, *(str(image) if one == "{image}" else one for one in arguments))
    assert refused.code == 2 and refused.err.count("\n") == 1 and said in refused.err
    assert "secret" not in refused.out + refused.err


def test_what_a_detector_can_not_do_is_refused(visionlora: Command, finder: Path, tmp_path: Path) -> None:
    clip = encode(tmp_path / "clip.mp4", 3)
    for arguments, said in (
        ((clip, "--threshold", "rde=0.4"), "'rde' is no class of"),
        (("rtsp://127.0.0.1:1/x", "--labels", tmp_path / "labels"), "--labels is for images and videos"),
    ):
        refused = visionlora("predict", finder, *arguments)
        assert refused.code == 2 and refused.err.count("\n") == 1 and said in refused.err
    if find_spec("supervision") is not None:
        refused = visionlora("predict", finder, clip, "--zone", "a=0,0,999,0,999,999")
        assert refused.code == 2 and f"outside of the picture's {WIDTH} x {HEIGHT} pixels" in refused.err


def test_whoever_gives_up_while_it_connects_is_told_so(visionlora: Command, trained: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        stopped = visionlora("predict", trained, f"http://127.0.0.1:{silent.getsockname()[1]}/x")
    assert stopped.code == 130 and "stopped by SIGINT" in stopped.err


def test_times_as_people_write_them() -> None:
    texts = ("90", "90s", "1.5 min", "10min", "2h", "1d", "200ms")
    assert [seconds_of(text, "--for") for text in texts] == [90, 90, 90, 600, 7200, 86400, 0.2]
    for text in ("", "0", "-1s", "1 week", "s"):
        with pytest.raises(InputError, match="--for .*is no time"):
            seconds_of(text, "--for")
