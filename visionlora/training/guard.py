"""Optimizer steps that are taken only where loss and gradient are finite.

Whether they are is decided on the device: nothing is read back before ``Skips.settle``, which the loop calls where it
reads the loss anyway. On the CPU, where reading costs nothing, that is every step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from visionlora.adapters import norm
from visionlora.data.loading import Key

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class GuardedStep:
    """Takes steps that leave weights, optimizer state and BatchNorm's statistics as they were where something is not
    finite. What else a module keeps in buffers of its own is not looked after.

    Args:
        model: in training mode.
        optimizer: a fused one decides by itself; of others the flag is read.
        scaler: of fp16; it leaves steps out by itself.
        clip: the largest norm of the gradient, 0 for any.

    Attributes:
        parameters: that the optimizer steps.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: "torch.amp.GradScaler", clip: float
    ) -> None:
        self._optimizer, self._scaler, self._clip = optimizer, scaler, clip
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._fused = all(group.get("fused") for group in optimizer.param_groups)
        buffers = [module._buffers.get(name) for module in norm.measuring(model) for name in _STATISTICS]
        self._statistics = _by_kind([buffer for buffer in buffers if buffer is not None])
        self._before: list[Tensor] = []

    def begin(self) -> None:
        """To be called before the first forward of a step."""
        self._before = [_flat(tensors) for tensors in self._statistics]

    def undo(self) -> None:
        """Bring BatchNorm's statistics back to where they were at ``begin``."""
        for tensors, before in zip(self._statistics, self._before, strict=True):
            _write(tensors, before)

    def step(self, loss: Tensor) -> Tensor:
        """Take the step, whose gradients are there, and return whether it was left out: () bool, on the device.

        ``loss`` is the sum over the step's batches.
        """
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        gradients[0].add_(loss.to(gradients[0].device) * 0)  # a loss that is not finite makes the gradient so
        self._scaler.unscale_(self._optimizer)
        total = torch.nn.utils.get_total_norm(gradients)
        bad = ~torch.isfinite(total)
        if self._clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self._clip, total)
        if self._scaler.is_enabled():
            self._scaler.step(self._optimizer)
            self._scaler.update()
        elif self._fused:
            self._optimizer.found_inf = bad.float()  # type: ignore[attr-defined]  # as a GradScaler tells it
            self._optimizer.step()
        elif not bad:
            self._optimizer.step()
        for tensors, before in zip(self._statistics, self._before, strict=True):
            _write(tensors, torch.where(bad.to(before.device), before, _flat(tensors)))
        return bad


@dataclass
class Skips:
    """Steps that were left out, as far as that has been read.

    Attributes:
        limit: so many in a row may be.
        scaler: of fp16; gradients that overflow while it looks for its scale are nobody's fault.
        tell: takes each one's description and what was not finite, ``loss`` or ``gradient``.
        in_row: up to the last step that was read.
    """

    limit: int
    scaler: "torch.amp.GradScaler"
    tell: Callable[["Step", str], None]
    in_row: int = 0
    _waiting: list[tuple["Step", Tensor, Tensor]] = field(default_factory=list)

    def add(self, step: "Step", left_out: Tensor, loss: Tensor) -> None:
        """Take note of a step, without a look at its flag."""
        self._waiting.append((step, left_out, torch.isfinite(loss)))

    def settle(self) -> "Step | None":
        """Read what was noted; the step at which there were more in a row than may be."""
        if not self._waiting:
            return None
        steps, flags = [step for step, _, _ in self._waiting], [torch.stack(flag) for _, *flag in self._waiting]
        self._waiting = []
        searching = self.scaler.is_enabled() and self.scaler.get_scale() >= 1
        for step, (left_out, finite) in zip(steps, torch.stack(flags).tolist(), strict=True):
            if not left_out or (finite and searching):
                self.in_row = 0
                continue
            self.in_row += 1
            self.tell(step, "gradient" if finite else "loss")
            if self.in_row > self.limit:
                return step
        return None


@dataclass(frozen=True)
class Step:
    """An optimizer step: its number, its epoch from 0, and the keys of its batches."""

    number: int
    epoch: int
    batches: Sequence[Sequence[Key]]


def _by_kind(tensors: list[Tensor]) -> list[list[Tensor]]:
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    return list(kinds.values())


def _write(tensors: list[Tensor], flat: Tensor) -> None:
    """The inverse of ``_flat``, in place."""
    parts = flat.split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(tensors, [part.view_as(to) for part, to in zip(parts, tensors, strict=True)])


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
