"""Nothing that a file or a class is called moves the cursor, and no password is shown."""

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
        ("me@host: x", "me@host: x"),
    ],
)
def test_no_credentials_of_a_url(url: str, shown: str) -> None:
    assert on_one_line(f"{url}: can't be read") == f"{shown}: can't be read"


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
