"""Nothing that a file or a class is called moves the cursor, and no password is shown."""

import re
from pathlib import Path

import pytest

from helpers.squares import Command
from visionlora.cli.exit_code import exit_code
from visionlora.cli.show import print_table, say
from visionlora.errors import InputError, on_one_line, printable, some

WILD = "a\x1b[2J\x07\r\nb\x9b31m\u202ec"
TAME = r"a\x1b[2J\x07\r\nb\x9b31m\u202ec"


def is_tame(text: str) -> bool:
    return all(one.isprintable() or one == "\n" for one in text)


def test_what_is_escaped_and_what_is_left() -> None:
    assert on_one_line(WILD) == TAME
    assert on_one_line("straße 街 \u00e9 😀\tx") == "straße 街 \u00e9 😀\tx"
    assert printable("a\nb\x1b") == "a\nb\\x1b"
    assert some([WILD, "b"]) == f"{TAME}, b"
    assert on_one_line("\ud800") == "\\ud800"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@host/x", "https://***@host/x"),
        ("rtsp://admin:secret@10.0.0.1:554/1", "rtsp://***@10.0.0.1:554/1"),
        ("https://secret@host", "https://***@host"),
        ("https://host/a@b", "https://host/a@b"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("rtsp://me:sec@ret@host/1", "rtsp://***@host/1"),
        ("rtsp://me:sec/ret@host/1", "rtsp://***@host/1"),
        ("rtsp:/me:secret@host/1", "rtsp:/***@host/1"),  # as pathlib writes it
        ("https://host/x.pth?v=1&token=secret", "https://host/x.pth?***"),
        ("https://host/x.pth?X-Amz-Signature=sec/ret@1", "https://host/x.pth?***"),
        ("https://host/x#access_token=secret", "https://host/x?***"),
        ("https:/me:secret@host/x?key=secret", "https:/***@host/x?***"),
        ("'https://host/x?sig=secret'", "'https://host/x?***'"),
        ("C:/a@b?c", "C:/a@b?c"),
        ("me@host: x", "me@host: x"),
    ],
)
def test_no_credentials_of_a_url(url: str, shown: str) -> None:
    assert on_one_line(f"{url} can't be read") == f"{shown} can't be read"


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "{trained}", "rtsp://me:secret@127.0.0.1:1/1?token=secret"),
        ("predict", "{trained}", "https://127.0.0.1:1/x.mp4?X-Amz-Signature=secret"),
        ("eval", "{trained}", "data.root=https://me:secret@host/x?key=secret"),
        ("eval", "{trained}", "--checkpoint", "https://me:secret@host/x.pth?key=secret"),
        ("frames", "rtsp://me:secret@host/1", "--out", "x"),
        ("check-data", "https://me:secret@host/annotations.json"),
        ("inspect", "hf-hub:https://me:secret@host/x?key=secret"),
        ("train", "--config", "https://me:secret@host/run.yaml?key=secret"),
    ],
)
def test_no_command_shows_a_secret(visionlora: Command, trained: Path, arguments: tuple[str, ...]) -> None:
    refused = visionlora(*(str(trained) if one == "{trained}" else one for one in arguments))
    assert refused.code == 2 and refused.err.count("\n") == 1
    assert "secret" not in refused.out + refused.err


@pytest.mark.parametrize("kind", [InputError, lambda text: OSError(2, "No such file", text)])
def test_an_error_is_one_plain_line(kind: type[Exception], capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise kind(f"{WILD} of rtsp://me:secret@host")

    assert exit_code(fail) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and is_tame(err) and "secret" not in err


def test_tables_and_lines_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name", "value"], [[WILD, WILD]])
    say(f"{WILD}: done")
    out = capsys.readouterr().out
    assert is_tame(out) and "\\x1b" in out


def test_a_command_shows_wild_file_names_escaped(visionlora: Command, trained: Path, tmp_path: Path) -> None:
    wild = tmp_path / "x\x1b]0;owned\x07\n.png"
    wild.write_bytes((next((trained.parent.parent).rglob("*.png"))).read_bytes())
    found = visionlora("predict", trained, wild)
    assert found.code == 0 and is_tame(found.out)
    wild.write_bytes(b"no picture")
    for arguments in (("predict", trained, wild), ("predict", trained, tmp_path / "no\x1bthing"), ("eval", wild)):
        refused = visionlora(*arguments)
        assert refused.code == 2 and is_tame(refused.err) and refused.err.count("\n") == 1


LONG = "full:train.freeze_batchnorm=true"
NUMBERS = ("20-shot", "0.8532 ± 0.0170", "3,373,570", "1380", "13.69")
HEADER = ("method", "labels", "score", "parameters", "step, ms", "file, MB")


def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int | None) -> list[str]:
    """A table's lines on a terminal of so many columns, or in a pipe."""
    monkeypatch.setenv("COLUMNS", str(columns or 80))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1" if columns else "")
    print_table(HEADER, [(LONG, *NUMBERS), ("frozen", *NUMBERS)])
    return re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()


@pytest.mark.parametrize("columns", [20, 60, 80, 200])
def test_a_table_loses_nothing_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    lines = shown(capsys, monkeypatch, columns)
    for line in (line for line in lines if "20-shot" in line):
        assert all(number in line for number in NUMBERS)
    left = [line.partition(NUMBERS[0])[0].strip() for line in lines]
    assert LONG in "".join(left)
    assert columns < 80 or max(map(len, lines)) <= columns


def test_in_a_pipe_each_row_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(capsys, monkeypatch, None)
    assert [line.split()[0] for line in lines if "20-shot" in line] == [LONG, "frozen"]
