"""Local files of weights: reading them, and saying what is wrong with them."""

from pathlib import Path

import torch
from timm.models import load_state_dict
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from visionlora.errors import InputError, some
from visionlora.models.stated import stated


def read_state_dict(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or pth file (pickles without code only), by name.

    Raises:
        InputError: the file is damaged or holds no weights.
    """
    try:
        tensors = dict(load_state_dict(str(checkpoint), use_ema=False))
    except Exception as error:  # on a damaged file the unpickler raises almost anything
        reason = first_line(error)
        if "weights_only" in reason:
            reason = "a pickle of more than tensors, which could run code"
        raise InputError(
            f"{checkpoint}: can't be read as weights ({reason}); give a state_dict(), best as safetensors"
        ) from error
    if other := [key for key, value in tensors.items() if not isinstance(value, Tensor)]:
        raise InputError(f"{checkpoint}: holds {some(other)}, not weights; save model.state_dict() there")
    return tensors


def head_outputs(tensors: dict[str, Tensor], head: str | None) -> int:
    """How many classes the head in a file has; 0 if it holds no head of that name."""
    for name in (f"{head}.bias", f"{head}.weight"):
        if name in tensors and tensors[name].ndim:
            return int(tensors[name].shape[0])
    return 0


def explain_mismatch(
    checkpoint: Path | str, name: str, model: nn.Module, tensors: dict[str, Tensor], error: BaseException
) -> str:
    """One line on how the tensors of a file differ from the model's; what torch said if they don't."""
    expected = model.state_dict()
    missing = [key for key in expected if key not in tensors]
    other = [key for key in expected if key in tensors and expected[key].shape != tensors[key].shape]
    surplus = [key for key in tensors if key not in expected]
    found = [
        f"{len(keys)} {what} ({some(keys, 2)})"
        for keys, what in ((missing, "missing"), (other, "of another shape"), (surplus, "unknown"))
        if keys
    ]
    reason = f"of its {len(expected)} tensors {', '.join(found)}" if found else first_line(error)
    return f"{checkpoint}: not the weights of {name}: {reason}"


def start_at_zero(model: nn.Module, head: list[str]) -> None:
    """Fill a new head with zeros, as BiT does (Kolesnikov et al. 2020, arXiv:1912.11370).

    Pretrained features can be large (a ViT-Tiny's have norm 60): the noise of a random head would then
    drown what a few hundred images say, and a small learning rate would never unlearn it.
    """
    with torch.no_grad():
        for name in head:
            for parameter in model.get_submodule(name).parameters():
                parameter.zero_()


def not_fetched(name: str, error: BaseException) -> InputError:
    """What to raise where a hub's weights for a model are out of reach."""
    return InputError(
        f"model {name}: its weights could not be fetched ({type(error).__name__}: {first_line(error)}); "
        f"give a local file as model.checkpoint, or model.pretrained=false"
    )


def from_torchvisions_hub(name: str, weights: WeightsEnum) -> dict[str, Tensor]:
    """The tensors of a torchvision model by name.

    Raises:
        InputError: they can't be fetched.
    """
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (OSError, ValueError, RuntimeError) as error:
        raise not_fetched(name, error) from error


def check_checkpoint(checkpoint: Path | None) -> None:
    """Raises InputError if there is no such file, or it holds no base."""
    if checkpoint is not None and not checkpoint.is_file():
        raise InputError(f"model.checkpoint {checkpoint}: no such file")
    stated(checkpoint)


def first_line(error: BaseException) -> str:
    """The first sentence, at most a line, of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
