"""The YAML files that come with the package."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from visionlora.config import load_config
from visionlora.errors import InputError, did_you_mean, some
from visionlora.sections import RunConfig


def read_config(name: str, overrides: Sequence[str]) -> RunConfig:
    """The config that ``--config`` names, with the overrides on top.

    Raises:
        InputError: none is named, there is none of this name, or it can't be used.
    """
    if not name:
        raise InputError(f"--config is missing; give a YAML file or one of {', '.join(shipped_configs())}")
    return load_config(find_config(name), list(overrides))


def find_config(name: str) -> Path:
    """A path as it stands, or the shipped config of that name.

    Raises:
        InputError: there is neither; the nearest shipped one is shown.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_configs()
    if name in shipped:
        return shipped[name]
    raise InputError(
        f"--config {name}: no such file, nor a shipped config{did_you_mean(name, shipped)}: {some(shipped, 9)}"
    )


def shipped_configs() -> dict[str, Path]:
    """Name -> file: inside the installed package, or in the checkout that it is installed from."""
    package = Path(str(files("visionlora")))
    folder = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
