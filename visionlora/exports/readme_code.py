"""The Python that a README shows to load a model, and that is run as it stands there."""

from pathlib import Path
from typing import Any

from visionlora.tasks.models import Trained
from visionlora.tasks.registry import task_of
from visionlora.tasks.together import together_of


def loading_code(trained: Trained, file: Path) -> str:
    """Python that makes the plain ``model`` from its merged weights, by its library alone."""
    where = repr(str(file))
    creation = "" if together_of(trained) else task_of(trained.task).creation_code(trained)
    if not creation:
        return (
            f"from pathlib import Path\nfrom visionlora import load_trained\nmodel = load_trained(Path({where})).model"
        )
    return f"{creation}\nfrom safetensors.torch import load_file\nmodel.load_state_dict(load_file({where}))"


def run_loader(code: str) -> Any:
    """What the code calls ``model``.

    The code is an export's own, never anyone's input: so what people are told to run is what was checked.
    """
    names: dict[str, Any] = {}
    exec(code, names)
    return names["model"]
