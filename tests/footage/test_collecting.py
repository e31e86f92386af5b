"""Frames of many recordings: which, from when, under which light; stopped and gone on with; what is bad among them."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from helpers.clips import HEIGHT, WIDTH, difference, encode, scene, write
from visionlora.cli import frame_sets
from visionlora.cli.frame_sets import Every, collect, parse_every
from visionlora.cli.main import main
from visionlora.data.annotations.layouts import read_annotations
from visionlora.data.near_duplicates import fingerprint
from visionlora.data.video import VideoFrames
from visionlora.errors import InputError
from visionlora.footage import collecting
from visionlora.footage.collecting import Collection, Thinning
from visionlora.footage.recordings import find_recordings
from visionlora.training.lock import locked

SECOND = Every(period=1.0)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file there is."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def listed(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]


def summary(out: Path, camera: str, recording: str) -> dict[str, Any]:
    text = (out / "recordings" / camera / f"{recording}.jsonl").read_text()
    found: dict[str, Any] = json.loads(text.splitlines()[-1])
    return found


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Two cameras, three recordings."""
    for name in ("gate/20240531-120000.mp4", "gate/20240601-120000.mkv", "yard/2024-05-31.avi"):
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        encode(path, 40, "mpeg4" if path.suffix == ".avi" else "libx264")
    return tmp_path / "site"


def test_many_recordings_become_one_folder_with_a_list(
    tmp_path: Path, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert collect([site], out, SECOND, -1) == 0
    lines = listed(out)
    assert [(line["camera"], line["frame"], line["time"]) for line in lines] == [
        *(("gate", 10 * n, f"2024-05-31T12:00:0{n}.000") for n in range(4)),
        *(("gate", 10 * n, f"2024-06-01T12:00:0{n}.000") for n in range(4)),
        *(("yard", 10 * n, f"2024-05-31T00:00:0{n}.000") for n in range(4)),
    ]
    assert lines[1]["file"] == "images/gate/gate_20240531-120000_000010.jpg"
    assert {line["light"] for line in lines} == {"day"}
    for line in lines:
        assert difference(np.asarray(Image.open(out / line["file"])), scene(line["frame"])) < 6
    assert {path for path in contents(out) if path.endswith(".jpg")} == {line["file"] for line in lines}
    assert len({Path(line["file"]).name for line in lines}) == len(lines)
    printed = capsys.readouterr().out
    assert f"12 frames in {out}" in printed


def test_near_duplicates_are_dropped_by_the_stated_number_of_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [np.kron(rng.integers(0, 256, (16, 17)), np.ones((4, 4)))[..., None].repeat(3, 2) for _ in range(3)]
    order = [0, 0, 1, 0, 1, 2, 2, 0]
    noise = [rng.normal(0, 2, (64, 68, 3)) for _ in order]
    frames = [np.clip(pictures[n] + noise[k], 0, 255).astype(np.uint8) for k, n in enumerate(order)]
    path = write(tmp_path / "a.mp4", frames)
    collect([path], tmp_path / "out", Every(), 8)
    assert [line["frame"] for line in listed(tmp_path / "out")] == [0, 2, 5]
    assert summary(tmp_path / "out", "a", "a")["near_duplicates"] == 5
    collect([path], tmp_path / "all", Every(), -1)
    assert len(listed(tmp_path / "all")) == len(order)


def test_the_kits_campus_keeps_what_moved(tmp_path: Path, kit: Path) -> None:
    """The threshold's own measure: by bits that a plain loop counts."""
    video = kit / "data" / "pets2009_s2l1" / "vtest.avi"
    collect([video], tmp_path / "out", Every(50), 12, start="2009-06-01T10:00:00")
    kept: list[int] = []
    for frame in VideoFrames(video, 50):
        bits = int.from_bytes(fingerprint(Image.fromarray(frame.image)), "big")
        if all((bits ^ other).bit_count() > 12 for other in kept):
            kept.append(bits)
    lines = listed(tmp_path / "out")
    assert len(lines) == len(kept) > 5
    assert [line["time"] for line in lines[:2]] == ["2009-06-01T10:00:00.000", "2009-06-01T10:00:05.000"]


@pytest.mark.parametrize(
    ("name", "created", "start", "time"),
    [
        ("a.mp4", "", None, None),
        ("a.mp4", "2024-05-31T12:00:00Z", None, "2024-05-31T12:00:00.000+00:00"),
        ("a_20240601.mp4", "2024-05-31T12:00:00Z", None, "2024-06-01T00:00:00.000"),
        ("a_20240601.mp4", "2024-05-31T12:00:00Z", "2024-07-01T08:00", "2024-07-01T08:00:00.000"),
    ],
)
def test_where_the_start_comes_from(
    tmp_path: Path, name: str, created: str, start: str | None, time: str | None
) -> None:
    collect([encode(tmp_path / name, 3, created=created)], tmp_path / "out", SECOND, -1, start=start)
    assert listed(tmp_path / "out")[0]["time"] == time


class Killed(BaseException):
    pass


def stop_at(monkeypatch: pytest.MonkeyPatch, name: str, call: int) -> None:
    """The so many-th call of this in ``collecting`` ends everything."""
    plain = getattr(collecting, name)
    calls: list[int] = []

    def stopping(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return plain(*given, **named)

    monkeypatch.setattr(collecting, name, stopping)


@pytest.mark.parametrize("place", ["save_image", "light_of", "sync"])
@pytest.mark.parametrize("call", [1, 2, 5])
def test_whoever_stops_goes_on_to_the_same(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch, place: str, call: int
) -> None:
    collect([site], tmp_path / "whole", SECOND, 1)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stop_at(patch, place, call)
        collect([site], tmp_path / "out", SECOND, 1)
    # Half a line, as a full disk leaves it.
    for part in (tmp_path / "out").rglob("*.part"):
        with part.open("ab") as file:
            file.write(b'{"file": "images/ga')
    collect([site], tmp_path / "out", SECOND, 1)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_that_was_killed_is_gone_on_with(tmp_path: Path, site: Path) -> None:
    collect([site], tmp_path / "whole", SECOND, -1)

    def run() -> None:
        saved, calls = collecting.save_image, []

        def killing(*given: Any) -> None:
            calls.append(1)
            saved(*given)
            if len(calls) == 6:
                os.kill(os.getpid(), signal.SIGKILL)

        collecting.save_image = killing
        collect([site], tmp_path / "out", SECOND, -1)

    process = get_context("fork").Process(target=run)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "out" / "frames.jsonl").exists()
    collect([site], tmp_path / "out", SECOND, -1)
    left = contents(tmp_path / "out")
    assert {name for name in left if "run.lock" in name} == set()
    assert left == contents(tmp_path / "whole")


def test_recordings_that_come_later_are_added_and_nothing_is_read_twice(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    collect([site], tmp_path / "whole", SECOND, -1)
    later = tmp_path / "later"
    shutil.copytree(site, later)
    (later / "gate" / "20240601-120000.mkv").rename(tmp_path / "20240601-120000.mkv")
    collect([later], tmp_path / "out", SECOND, -1)
    (tmp_path / "20240601-120000.mkv").rename(later / "gate" / "20240601-120000.mkv")
    saved: list[Path] = []
    plain = collecting.save_image
    monkeypatch.setattr(collecting, "save_image", lambda image, path: (saved.append(path), plain(image, path)))
    collect([later], tmp_path / "out", SECOND, -1)
    assert len(saved) == 4
    assert "2 of 3 recordings were done before" in capsys.readouterr().out
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_the_bar_knows_how_much_is_left(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is told adds up to its total, in small steps, whether or not a file says how long it is."""
    bars: dict[str, tuple[int | None, list[int]]] = {}

    @contextmanager
    def watched(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
        bars[description] = (total, [])
        yield bars[description][1].append

    monkeypatch.setattr(frame_sets, "progress", watched)
    monkeypatch.setattr(frame_sets, "_megabytes", lambda size: size)
    collect([site], tmp_path / "out", SECOND, -1)
    total, steps = bars["saving frames, MB"]
    assert total == sum(path.stat().st_size for path in site.rglob("*.*")) == sum(steps)
    assert min(steps) >= 0 and len([step for step in steps if step]) > 6
    assert bars["opening recordings"] == (3, [1, 1, 1])


def test_what_was_begun_otherwise_is_not_gone_on_with(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stop_at(patch, "save_image", 3)
        collect([site], tmp_path / "out", SECOND, 1)
    with pytest.raises(InputError, match=r"20240531-120000.jsonl.part: was begun with another file or other settings"):
        collect([site / "gate" / "20240531-120000.mp4"], tmp_path / "out", SECOND, 8, camera="gate")


def test_other_settings_and_other_files_are_not_mixed_in(tmp_path: Path, site: Path) -> None:
    out = tmp_path / "out"
    collect([site], out, SECOND, -1)
    before = contents(out)
    with pytest.raises(InputError, match="was made with --every 1s --near -1, and not --every 2s --near 8"):
        collect([site], out, Every(period=2.0), 8)
    encode(site / "gate" / "20240531-120000.mp4", 20)
    with pytest.raises(InputError, match="is of a file 20240531-120000.mp4 of .* bytes, and"):
        collect([site], out, SECOND, -1)
    assert contents(out) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty, and holds no frames"):
        collect([site], tmp_path / "full", SECOND, -1)
    assert contents(tmp_path / "full") == {"mine.txt": b"mine"}


@pytest.mark.parametrize("damage", [b"", b"[]\n", b"{}\n", b"\xff\n"])
def test_a_damaged_list_is_named(tmp_path: Path, damage: bytes) -> None:
    path = encode(tmp_path / "a.mp4", 3)
    collect([path], tmp_path / "out", SECOND, -1)
    (tmp_path / "out" / "recordings" / "a" / "a.jsonl").write_bytes(damage)
    with pytest.raises(InputError, match=r"a.jsonl: is damaged: .*remove it, and the recording is read anew"):
        collect([path], tmp_path / "out", SECOND, -1)


def truncated(path: Path) -> None:
    encode(path, 60, options={"movflags": ""})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def sound_alone(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", 8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())


def no_codec(path: Path) -> None:
    encode(path, 3)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (truncated, "damaged at its start"),
    "zero bytes": (Path.touch, "no video of a known format"),
    "sound alone": (sound_alone, "holds no video"),
    "missing codec": (no_codec, "holds no video that can be decoded"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_recording_is_named_and_passed_over(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = BAD[case]
    bad, good = tmp_path / "bad.mp4", encode(tmp_path / "good.mp4", 12)
    make(bad)
    with pytest.raises(InputError, match=message):
        collect([bad], tmp_path / "alone", SECOND, -1)
    assert not (tmp_path / "alone").exists()
    assert collect([bad, good], tmp_path / "out", SECOND, -1) == 1
    printed = capsys.readouterr().out
    assert f"passed over: {bad}: " in printed and message in printed
    assert [line["recording"] for line in listed(tmp_path / "out")] == ["good"] * 2


def test_damaged_spans_are_told_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = encode(tmp_path / "a.mkv", 120, noise=60, options={"g": "10", "bf": "0"})
    content = bytearray(path.read_bytes())
    at = len(content) // 2
    content[at : at + len(content) // 40] = bytes(len(content) // 40)
    path.write_bytes(content)
    assert collect([path], tmp_path / "out", Every(), -1) == 0
    found = summary(tmp_path / "out", "a", "a")
    ((start, end),) = found["damaged"]
    times = [line["seconds"] for line in listed(tmp_path / "out")]
    assert times[-1] == pytest.approx(11.9, abs=0.01)
    assert not [time for time in times if start + 0.01 < time < end - 0.01]
    assert found["damage"].startswith(f"{path}: damaged ")
    assert f"a.mkv: passed over {start:.1f} to {end:.1f} s" in capsys.readouterr().out


@pytest.mark.parametrize("rotation", [90, 180])
def test_rotated_recordings_come_upright(tmp_path: Path, rotation: int) -> None:
    path = encode(tmp_path / "a.mp4", 3, rotation=rotation)
    collect([path], tmp_path / "out", SECOND, -1)
    image = np.asarray(Image.open(tmp_path / "out" / listed(tmp_path / "out")[0]["file"]))
    assert image.shape[:2] == ((WIDTH, HEIGHT) if rotation == 90 else (HEIGHT, WIDTH))
    assert difference(image, np.rot90(scene(0), rotation // 90)) < 6


@pytest.mark.parametrize(
    ("text", "every"),
    [("1", Every(1)), ("25", Every(25)), ("1s", SECOND), ("500ms", Every(period=0.5)), ("2m", Every(period=120.0))],
)
def test_every_is_frames_or_a_time(text: str, every: Every) -> None:
    assert parse_every(text) == every


@pytest.mark.parametrize("text", ["0", "-1", "0s", "1 day", "", "1e3", "\u0661"])
def test_every_is_nothing_else(text: str) -> None:
    with pytest.raises(InputError, match="should be a number of frames, from 1, or a time"):
        parse_every(text)


def test_start_is_of_one_recording(tmp_path: Path, site: Path) -> None:
    with pytest.raises(InputError, match="3 are given"):
        collect([site], tmp_path / "out", SECOND, -1, start="2024-05-31")
    with pytest.raises(InputError, match="should be as 2024-05-31T12:00:00"):
        collect([site / "yard"], tmp_path / "out", SECOND, -1, start="noon")


def test_the_command_tells_lists_from_numbered_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp4", 12)

    def run(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["visionlora", "frames", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0)

    assert run(path, "--every", 5, "--out", tmp_path / "numbered") == 0
    assert sorted(contents(tmp_path / "numbered")) == [f"images/{n:06d}.jpg" for n in (0, 5, 10)]
    assert run(path, "--every", "500ms", "--near", -1, "--camera", "gate", "--out", tmp_path / "listed") == 0
    assert [line["file"] for line in listed(tmp_path / "listed")] == [
        f"images/gate/gate_a_{n:06d}.jpg" for n in (0, 5, 10)
    ]


def test_annotations_that_count_frames_follow_them(tmp_path: Path) -> None:
    video, out = encode(tmp_path / "a.mp4", 30), tmp_path / "out"
    images = [{"id": 10 + n, "frame": n, "width": WIDTH, "height": HEIGHT} for n in (0, 5, 10, 20)]
    things = [{"id": n, "image_id": 10 + n, "category_id": 1, "bbox": [8, 9, 20, 30]} for n in (0, 5, 10, 20)]
    document = {"images": images, "annotations": things, "categories": [{"id": 1, "name": "van"}]}
    source = tmp_path / "boxes.json"
    source.write_text(json.dumps(document))
    assert collect([video], out, SECOND, -1, camera="gate", annotations=source) == 0
    data = read_annotations(out / "annotations.json")
    assert [image.path.name for image in data.images] == [f"gate_a_{n:06d}.jpg" for n in (0, 10, 20)]
    assert [image.fields["camera"] for image in data.images] == ["gate"] * 3
    assert [image.fields["seconds"] for image in data.images] == [0.0, 1.0, 2.0]
    before = contents(out)
    with pytest.raises(InputError, match=r"annotations.json: exists already"):
        collect([video], out, SECOND, -1, camera="gate", annotations=source)
    other = encode(tmp_path / "b.mp4", 3)
    with pytest.raises(InputError, match="counts the frames of one recording, and 2 are given"):
        collect([video, other], tmp_path / "two", SECOND, -1, annotations=source)
    with pytest.raises(InputError, match="describes frame 20, and .*b.mp4 has 3 frames"):
        collect([other], tmp_path / "two", SECOND, -1, annotations=source)
    assert contents(out) == before and not (tmp_path / "two").exists()


def test_only_one_at_a_time(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", 3)
    (recording,) = find_recordings([path])
    collection = Collection(tmp_path / "out", Thinning())
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"), pytest.raises(InputError, match="is saving frames in it"):
        collect([path], tmp_path / "out", SECOND, -1)
    assert collection.done(recording) is None
