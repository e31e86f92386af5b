"""Signals become requests, and go back to what they were."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from visionlora.cli import main as command_line
from visionlora.files import growing_json, new_folder
from visionlora.stopping import STOPPING, Interrupted, Stopped, deaf_children, stop_requests, stopping_raises


@pytest.mark.parametrize("number", STOPPING)
def test_the_first_signal_is_a_request_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = {one: signal.getsignal(one) for one in STOPPING}
    with stop_requests() as asked:
        assert asked() == 0
        signal.raise_signal(number)
        assert asked() == number
        signal.raise_signal(signal.SIGTERM)
        assert asked() == number
    assert {one: signal.getsignal(one) for one in STOPPING} == before


def test_a_second_ctrl_c_stops_at_once_and_a_second_hangup_does_not() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl+C
    with stop_requests() as asked:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert asked() == signal.SIGHUP
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_what_is_asked_inside_is_asked_outside_too() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with stop_requests() as outer:
        with stop_requests() as inner:
            signal.raise_signal(signal.SIGINT)
            assert (inner(), outer()) == (signal.SIGINT, signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert outer() == signal.SIGINT
    with stop_requests() as outer:
        with stop_requests() as inner:
            assert inner() == 0
        signal.raise_signal(signal.SIGTERM)
        assert (inner(), outer()) == (0, signal.SIGTERM)
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def own_handlers() -> Iterator[None]:
    """Python's, whatever started the tests: a shell's background jobs ignore Ctrl+C."""
    handlers = dict.fromkeys(STOPPING, signal.SIG_DFL) | {signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPPING)
def test_elsewhere_a_signal_leaves_nothing_half_written(
    number: signal.Signals, tmp_path: Path, own_handlers: None
) -> None:
    with pytest.raises(Stopped) as stop, stopping_raises(), new_folder(tmp_path / "folder") as folder:
        (folder / "part").touch()
        with growing_json(tmp_path / "list.json") as add:
            add("entry")
            assert len(list(tmp_path.iterdir())) == 2
            signal.raise_signal(number)
    assert list(tmp_path.iterdir()) == []
    assert stop.value.exit_code == 128 + number and str(stop.value).startswith(f"stopped by {number.name}; ")
    with stopping_raises(), stop_requests() as asked:
        signal.raise_signal(number)
        assert asked() == number


def test_a_hangup_counts_once_and_an_ignored_one_never(own_handlers: None) -> None:
    with pytest.raises(Stopped), stopping_raises():
        try:
            signal.raise_signal(signal.SIGHUP)
        finally:
            signal.raise_signal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stopping_raises():
        signal.raise_signal(signal.SIGHUP)


def test_a_run_under_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as asked:
            signal.raise_signal(signal.SIGHUP)
            assert asked() == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_beside_the_main_thread_nobody_asks() -> None:
    found: list[int] = []

    def work() -> None:
        with stop_requests() as asked:
            found.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [0]


@pytest.mark.parametrize("number", STOPPING)
def test_signals_come_to_the_parent_and_not_to_what_it_started_meanwhile(number: signal.Signals) -> None:
    with stop_requests() as asked:
        with deaf_children():
            child = os.fork()
            if not child:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
                os._exit(7)
            os.kill(os.getpid(), number)
        deadline = time.monotonic() + 60  # another thread may have got it, and has yet to pass it on
        while not asked() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert asked() == number
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_the_exit_code_is_a_shells() -> None:
    codes = {number.name: Interrupted("at step 1", number).exit_code for number in STOPPING}
    assert codes == {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
    assert str(Interrupted("at step 1", signal.SIGINT)) == "stopped at step 1; the same command with --resume goes on"


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_outside_of_a_run_ends_any_command_with_its_code(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = {one: signal.getsignal(one) for one in STOPPING}
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def inspect(*_arguments: object) -> None:
        with new_folder(tmp_path / "out"):
            signal.raise_signal(number)

    monkeypatch.setattr("visionlora.cli.inspect.inspect", inspect)
    monkeypatch.setattr("sys.argv", ["visionlora", "inspect", "resnet18"])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 128 + number
    assert capsys.readouterr() == ("", f"stopped by {number.name}; what was not finished is not kept\n")
    assert list(tmp_path.iterdir()) == []
    signal.signal(signal.SIGINT, before[signal.SIGINT])
    assert {one: signal.getsignal(one) for one in STOPPING} == before


def test_a_second_ctrl_c_has_the_code_of_the_first() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(Stopped) as ended, stopping_raises(), stop_requests():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
    assert ended.value.exit_code == 130
