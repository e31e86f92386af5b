"""The moving average of what trains, which is evaluated and saved in its place."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from visionlora.adapters import norm


class Average:
    """An exponential moving average of trainable parameters and of statistics that BatchNorm measures.

    After step t it is ``d`` times itself and ``1 - d`` times the model, ``d = min(decay, (1 + t) / (10 + t))``, so that
    the start soon has no part in it (as TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``). timm's
    ``ModelEmaV3`` keeps a whole copy of the model, frozen weights included; this keeps what changes.

    Args:
        model: its tensors are known from here on.
        decay: at least 0 and below 1; 0 is no average: nothing is kept, and the model is shown as it is.

    Attributes:
        tensors: the average, by the names of the model's own in ``state_dict``.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        statistics = {
            id(buffer)
            for module in model.modules()
            if norm.has_running_stats(module) and not norm.is_frozen(module)
            for buffer in module.buffers(recurse=False)
            if buffer.is_floating_point()
        }
        trains = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
        own = {
            name: tensor
            for name, tensor in model.state_dict(keep_vars=True).items()
            if id(tensor) in (trains | statistics) and decay
        }
        self._own: dict[str, Tensor] = {name: tensor.detach() for name, tensor in own.items()}
        self.tensors = {name: tensor.clone() for name, tensor in self._own.items()}
        self._before: list[Tensor] | None = None

    def update(self, step: int) -> None:
        """Take note of the model after optimizer step ``step``, from 1."""
        if self.tensors:
            share = 1 - min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(self.tensors.values()), list(self._own.values()), share)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from an average of this model.

        Raises:
            ValueError: it is another model's.
        """
        shapes, others = ({name: t.shape for name, t in each.items()} for each in (self.tensors, tensors))
        if shapes != others:
            raise ValueError("its average is of other tensors")
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within the block the model's tensors are the average."""
        around, self._before = self._before, [tensor.clone() for tensor in self._own.values()]
        self._show(self.tensors.values())
        try:
            yield
        finally:
            self._show(self._before)
            self._before = around

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within the block, which may lie in one of ``shown``, the model's tensors are its own."""
        if self._before is None:
            yield
            return
        self._show(self._before)
        try:
            yield
        finally:
            self._show(self.tensors.values())

    def _show(self, values: Iterable[Tensor]) -> None:
        for tensor, value in zip(self._own.values(), values, strict=True):
            tensor.copy_(value)
