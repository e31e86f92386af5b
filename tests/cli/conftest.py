"""The command line in this process, and a run over generated squares that the tests share."""

import sys
from pathlib import Path

import pytest

from helpers.squares import Command, Outcome, write_config, write_squares
from visionlora.cli.main import main


@pytest.fixture
def visionlora(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """``visionlora("train", "--config", path, ...)`` as on the command line."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["visionlora", *(str(argument) for argument in arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code
        assert isinstance(code, int) or code is None
        out, err = capsys.readouterr()
        return Outcome(code or 0, out, err)

    return run


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder: six training and three validation images of each of three colours. Not to be changed."""
    root = tmp_path_factory.mktemp("squares")
    write_squares(root / "train", 6, seed=0)
    write_squares(root / "val", 3, seed=1)
    return root


@pytest.fixture
def config(tmp_path: Path, squares: Path) -> Path:
    """A config over the squares whose run folder is ``run`` beside it."""
    return write_config(tmp_path, squares)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, squares: Path) -> Path:
    """A run folder with an adapter. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["visionlora", "train", "--config", str(write_config(folder, squares))])
        try:
            main()
        except SystemExit as stopped:
            assert not stopped.code
    return folder / "run"
