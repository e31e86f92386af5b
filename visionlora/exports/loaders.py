"""The Python that a README shows to load a model, run as it stands there."""

from typing import Any


def run_loader(code: str) -> Any:
    """What the code calls ``model``.

    The code is an export's own, never anyone's input: so what people are told to run is what was checked.
    """
    names: dict[str, Any] = {}
    exec(code, names)
    return names["model"]
