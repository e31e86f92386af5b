"""Whether an update strengthens what a frozen weight does already, or adds directions that it does not have."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visionlora.adapters.layer import adapted_layers, adapted_parameters, effective_weight

MAIN = 0.9
"""Of a weight's energy, the sum of its squared singular values: the fewest directions that hold it are the main."""
FIRST = 10
ALIKE = 0.5
"""As in the paper: of the adapted weight's first singular vectors, one that is less like all of the frozen weight's."""


@dataclass(frozen=True)
class Directions:
    """A layer's update against the singular vectors of its frozen weight, seen as a matrix (dim 0, everything else).

    Attributes:
        path: the layer's name; of attention with several weights, with the parameter's.
        shape: rows and columns.
        main: directions that hold 90% of the frozen weight's energy.
        size: Frobenius norm of the update over the frozen weight's.
        new: share of the update's energy outside of the main directions, 0 to 1; 0 of an update that is 0.
        chance: what ``new`` is expected to be of an update in random directions.
        intruders: of the adapted weight's first ``FIRST`` left singular vectors, those that are none of the frozen's.
    """

    path: str
    shape: tuple[int, int]
    main: int
    size: float
    new: float
    chance: float
    intruders: int


def directions(model: nn.Module) -> list[Directions]:
    """Of each layer that the active adapters adapt, whatever their method; a singular value decomposition for each.

    Args:
        model: with adapters, not merged.
    """
    found = []
    for path, layer in adapted_layers(model):
        for name in adapted_parameters(layer):
            frozen = layer._parameters[name]
            assert frozen is not None
            with torch.no_grad():
                adapted = effective_weight(layer, name)
            own = path if name == "weight" else f"{path}.{name}"
            found.append(compared(own, frozen.detach(), adapted))
    return found


def compared(path: str, frozen: Tensor, adapted: Tensor) -> Directions:
    """Both weights (dim 0, ...) of one layer.

    With W = U diag(s) V^T the frozen weight, D the update, and U_k, V_k the first k singular vectors,

        new = 1 - |U_k^T D V_k|^2 / |D|^2, k the least with s_1^2 + ... + s_k^2 >= 0.9 |W|^2

    (Frobenius norms). Of D in random directions it is about 1 - k^2 / (rows * columns). Intruder dimensions are as in
    Shuttleworth et al. 2024, "LoRA vs Full Fine-tuning: An Illusion of Equivalence" (arXiv:2410.21228, algorithm 1):
    left singular vectors of W + D whose cosine with each of W's is below 0.5.
    """
    w, after = (tensor.double().flatten(1) for tensor in (frozen, adapted))
    update = after - w
    left, values, right = torch.linalg.svd(w, full_matrices=False)  # (m, q), (q,), (q, n)
    energy = values.square().cumsum(0)
    main = int((energy < MAIN * energy[-1]).sum()) + 1
    inside = left[:, :main].T @ update @ right[:main].T  # (k, k)
    whole = update.square().sum()
    first = torch.linalg.svd(after, full_matrices=False).U[:, :FIRST]
    likeness = (left.T @ first).abs().amax(dim=0)
    m, n = w.shape
    return Directions(
        path=path,
        shape=(m, n),
        main=main,
        size=float(update.norm() / w.norm().clamp(min=1e-12)),
        new=float(1 - inside.square().sum() / whole) if whole else 0.0,
        chance=1 - main**2 / (m * n),
        intruders=int((likeness < ALIKE).sum()),
    )
