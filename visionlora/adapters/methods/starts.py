"""Where a LoRA's factors start, other than at random as in a linear layer: by name, as ``LoRAConfig.init`` has it."""

import torch
from torch import Tensor, nn

from visionlora.adapters.config import FROM_IMAGES
from visionlora.adapters.methods.base import Method, exact
from visionlora.adapters.methods.lora import LoRA, RSLoRA
from visionlora.errors import InputError

FROM_WEIGHT = ("orthogonal", "pissa")
"""Those whose factors are parts of the weight, and are subtracted where they start, so that the frozen weight stays."""


@torch.no_grad()
def start(method: Method, weight: Tensor, init: str) -> None:
    """Fill a new method's factors.

    Args:
        method: as it was built for this weight.
        weight: the frozen weight; of rows alone where the method is for these, (n, ...).
        init: ``"kaiming"`` leaves them as they are.

    Raises:
        InputError: the method has no such start.
    """
    if init == "kaiming":
        return
    check_start(method, init)
    assert isinstance(method, LoRA)
    if init == "gaussian":
        nn.init.normal_(method.lora_A, std=1 / method.rank)
        return
    A, B = (_orthogonal if init == "orthogonal" else _principal)(exact(weight).flatten(1), method.rank, method.scale)
    method.start_at(A.view(-1, *weight.shape[1:]), B)


@torch.no_grad()
def make_room(method: Method, init: str) -> Method:
    """The method, with a place for where its factors started if they were parts of the weight: a file fills it."""
    if init in FROM_WEIGHT and isinstance(method, LoRA):
        method.start_at(method.lora_A.detach(), method.lora_B.detach())
    return method


def check_start(method: Method, init: str) -> None:
    """Raise the InputError of ``start``."""
    if init == FROM_IMAGES:
        raise InputError("init is 'eva', which starts from images; attach with another, then call start_from_data")
    plain = type(method) in (LoRA, RSLoRA)
    if init != "kaiming" and not (plain if init in FROM_WEIGHT else isinstance(method, LoRA)):
        raise InputError(f"init is '{init}', which a {type(method).__name__} has not; take another init or method")


def _orthogonal(rows: Tensor, rank: int, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The first rows of R and columns of Q of a QR decomposition (Büyükakyüz 2024, arXiv:2406.01775, algorithm 1)."""
    del scale
    Q, R = torch.linalg.qr(rows)
    return R[:rank], Q[:, :rank]


def _principal(rows: Tensor, rank: int, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The first r singular vectors, whose scaled product is the weight's best approximation of that rank
    (Meng et al. 2024, arXiv:2404.02948, equations 2 and 3).
    """
    left, sizes, right = torch.linalg.svd(rows, full_matrices=False)
    root = (sizes[:rank] / scale.abs()).sqrt()[:, None]
    # A negative scale turns the sign of one of them.
    return scale.sign() * root * right[:rank], left[:, :rank] * root.t()
