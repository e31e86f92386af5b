"""Local files of weights: reading them, and saying what is wrong with them."""

import pickle
from pathlib import Path

from safetensors import SafetensorError
from timm.models import load_state_dict
from torch import Tensor, nn

from visionlora.errors import InputError, some


def read_state_dict(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or pth file (pickles without code only), by name.

    Raises:
        InputError: the file is damaged or holds no weights.
    """
    try:
        return dict(load_state_dict(str(checkpoint), use_ema=False))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError, TypeError, KeyError) as error:
        raise InputError(f"{checkpoint}: can't be read as weights ({first_line(error)})") from error


def explain_mismatch(checkpoint: Path, name: str, model: nn.Module, tensors: dict[str, Tensor]) -> str:
    """One line on how the tensors of a file differ from the model's."""
    expected = model.state_dict()
    missing = [key for key in expected if key not in tensors]
    other = [key for key in expected if key in tensors and expected[key].shape != tensors[key].shape]
    surplus = [key for key in tensors if key not in expected]
    found = [
        f"{len(keys)} {what} ({some(keys, 2)})"
        for keys, what in ((missing, "missing"), (other, "of another shape"), (surplus, "unknown"))
        if keys
    ]
    return f"{checkpoint}: not the weights of {name}: of its {len(expected)} tensors {', '.join(found)}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
