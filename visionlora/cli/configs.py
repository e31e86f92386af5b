"""The YAML files that come with the package."""

from importlib.resources import files
from pathlib import Path

from visionlora.errors import InputError, did_you_mean, some


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
