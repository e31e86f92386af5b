"""A run whose processes hold the frozen base together (``train.shard_base``); ``adapters/sharding.py`` takes it apart.

A forward gathers weights, which takes all processes. In training they run the model equally often. In an evaluation,
or where process 0 draws pictures, they don't: who has nothing to run then joins in the gathering of the others.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from visionlora.adapters.sharding import frozen_bytes, shard
from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.training.distributed import Processes, together

T = TypeVar("T")


class ShardedBase:
    """The base of a run's model, in parts.

    Args:
        model: on the CPU, adapted and folded.
        processes: that hold it together.
        device: of this process.
        example: what the model is called with, on the CPU.

    Raises:
        InputError: the model can't be sharded.

    Attributes:
        whole, kept: bytes of frozen weights, all of them and what this process keeps.
        gathered: how many more there are at most while a block runs.
    """

    def __init__(self, model: nn.Module, processes: Processes, device: torch.device, example: Any) -> None:
        self._model, self._processes = model, processes
        self.whole = frozen_bytes(model)
        self._order = shard(model, example, device, _Gather())
        self.kept = frozen_bytes(model)
        self.gathered = max(block.whole_bytes for block in self._order)

    def __str__(self) -> str:
        return (
            f"train.shard_base: of {self.whole / 1e6:.2f} MB of frozen weights this process keeps "
            f"{self.kept / 1e6:.2f} MB, and gathers up to {self.gathered / 1e6:.2f} MB while a block runs"
        )

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Within the block each process runs the model as often as it likes; all are in such a block at once."""
        hook = self._model.register_forward_pre_hook(self._runs, prepend=True)
        try:
            yield
        finally:
            hook.remove()
        while self._announce(0):
            for block in self._order:
                block.gather()
                block.free()

    def from_main(self, compute: Callable[[], T]) -> T:
        """As ``Processes.from_main``, of what may run the model."""
        found: list[T] = []
        failed: list[InputError | OSError] = []
        with self.in_step():
            if self._processes.main:
                try:
                    found = [compute()]
                except (InputError, OSError) as error:
                    failed = [error]

        def tell() -> T:
            if failed:
                raise failed[0]
            return found[0]

        return self._processes.from_main(tell)

    def _runs(self, _model: nn.Module, _inputs: Any) -> None:
        self._announce(1)

    def _announce(self, runs: int) -> int:
        """How many processes are about to run the model."""
        number = torch.tensor(runs)
        with together():
            dist.all_reduce(number)
        return int(number)


class _Gather:
    """All-gather as FSDP2 asks for it: where a process is gone, it is told as everywhere."""

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, group: Any, async_op: bool = False) -> Any:
        with together():
            return dist.all_gather_into_tensor(output_tensor, input_tensor, group=group, async_op=async_op)


def refuse_sharding(config: RunConfig, processes: Processes) -> None:
    """Raise InputError if ``train.shard_base`` is asked of a run that can't have it."""
    if not config.train.shard_base:
        return
    if not processes.several:
        raise InputError(
            "train.shard_base=true has several processes hold the base together, and there is one; start more "
            "(train.devices=2, or torchrun), or leave it out"
        )
    if config.train.method == "full":
        raise InputError(
            "train.shard_base=true shards what is frozen, and with train.method=full nothing is; take lora or head"
        )
    if config.lora.rank == "auto" and config.train.method == "lora":
        raise InputError("lora.rank=auto looks at the whole model in one process; with train.shard_base give a number")
    if config.train.retain is not None:
        raise InputError("train.retain runs the whole base, which train.shard_base takes apart; leave one of them out")
    if config.train.keep_classes:
        raise InputError("train.keep_classes runs the whole base, which train.shard_base takes apart; leave one out")
    if config.train.compile != "off":
        raise InputError("train.compile has not been tried with train.shard_base; leave one of them out")
