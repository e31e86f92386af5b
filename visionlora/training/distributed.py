"""Several processes that train one model: who they are, and what they tell each other.

Every process holds the whole model, or a part of its base (``sharded.py``). The model stays a plain ``nn.Module``, and
sees a share of every batch. They add up the sums that a batch's loss is made of, and a step's gradients as one flat
tensor (docs/scaling.md says why there is no DistributedDataParallel). With one process nothing is sent, and nothing
else is done than without this module.
"""

import itertools
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from visionlora.data.loading import Key, share_of
from visionlora.errors import InputError
from visionlora.stopping import Interrupted, Lost, SaidElsewhere, Stopped
from visionlora.tasks.protocols import Additive, Batch, Metrics, Training
from visionlora.training.started import started_processes

_PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others: while one reads a large data set, say."""

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together. All call the same methods in the same order.

    Attributes:
        rank: its number, from 0; number 0 alone writes, shows and asks.
        size: how many there are.
        local_rank: its number on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """Whether this process writes and shows."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    def device(self, name: str) -> str:
        """The name of this process's device, where ``name`` is ``train.device``: of GPUs each has its own.

        Raises:
            InputError: there are fewer GPUs on this machine than processes, or all would share one.
        """
        if not self.several:
            return name
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name.startswith("cuda:"):
            raise InputError(f"train.device is {name}, and {self.size} processes need one each; give auto, cuda or cpu")
        if name != "cuda":
            return name
        if self.local_rank >= torch.cuda.device_count():
            raise InputError(
                f"process {self.local_rank + 1} of this machine has no GPU, there being {torch.cuda.device_count()}; "
                "start as many processes, or give train.device=cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return f"cuda:{self.local_rank}"

    def shares(self, batches: Sequence[Sequence[Key]]) -> list[list[Key]]:
        """This process's part of each batch; see ``share_of``."""
        return [list(share_of(batch, self.rank, self.size)) for batch in batches]

    def loss(self, training: Training, model: nn.Module, batch: Batch, images: int) -> Tensor:
        """The loss of a whole batch of so many images, scalar, of which this process has seen its share.

        It is the same in all processes; the gradients that it leaves are the share's part of the batch's.
        """
        if not self.several:
            return training.loss(model, batch)
        sums = training.loss_sums(model, batch)
        flat = torch.cat([part.reshape(-1) for part in sums.values()])
        if images * self.rank // self.size == images * (self.rank + 1) // self.size:
            flat = flat * 0  # it had no share, see ``share_of``
        with together():
            total: Tensor = _Sum.apply(flat)
        parts = total.split([part.numel() for part in sums.values()])
        return training.loss_of({name: part.view_as(sums[name]) for (name, part) in zip(sums, parts, strict=True)})

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give each parameter the sum of all processes' gradients; one that has none in any of them keeps none."""
        if not self.several:
            return
        trained = list(parameters)
        there = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.int32)
        with together():
            dist.all_reduce(there, dist.ReduceOp.MAX)
        kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for parameter, has in zip(trained, there.tolist(), strict=True):
            if has:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                kinds.setdefault((parameter.grad.dtype, parameter.grad.device), []).append(parameter.grad)
        for gradients in kinds.values():
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            with together():
                dist.all_reduce(flat)
            parts = flat.split([gradient.numel() for gradient in gradients])
            torch._foreach_copy_(gradients, [part.view_as(to) for part, to in zip(parts, gradients, strict=True)])

    def agreed(self, stop: Callable[[], int]) -> Callable[[], int]:
        """As ``stop``, with the same answer in all processes: a signal to one of them is a signal to all."""
        if not self.several:
            return stop
        parent = os.getppid() if _started_by_an_agent() else 0

        def ask() -> int:
            orphaned = parent and os.getppid() != parent  # what started us was killed, and would have told us to stop
            number = torch.tensor(stop() or (signal.SIGTERM if orphaned else 0))
            with together():
                dist.all_reduce(number, dist.ReduceOp.MAX)
            return int(number)

        return ask

    def gather(self, value: T) -> list[T]:
        """The values of all, in their order, in process 0; elsewhere nothing."""
        if not self.several:
            return [value]
        found: list[Any] | None = [None] * self.size if self.main else None
        with together():
            dist.gather_object(value, found)
        return found or []

    def from_main(self, compute: Callable[[], T]) -> T:
        """What process 0 computes, or the InputError or OSError that it raises, in all processes."""
        if not self.several:
            return compute()
        outcome: list[Any] = [None, None]
        if self.main:
            try:
                outcome[0] = compute()
            except (InputError, OSError) as error:
                outcome[1] = error
        with together():
            dist.broadcast_object_list(outcome, device=torch.device("cpu"))
        if outcome[1] is not None:
            raise outcome[1]
        found: T = outcome[0]
        return found

    @torch.no_grad()
    def as_in_main(self, tensors: Mapping[str, Tensor]) -> None:
        """Make the tensors, by name, what they are in process 0."""
        if not self.several:
            return
        for _, tensor in sorted(tensors.items()):
            plain = tensor.contiguous()  # else what is sent would be in the order of its memory
            with together():
                dist.broadcast(plain, 0)
            tensor.copy_(plain)

    def add_up(self, metrics: Metrics) -> None:
        """Have process 0's metrics take in what those of all have."""
        if self.several and isinstance(metrics, Additive):
            for state in self.gather(None if self.main else metrics.state())[1:]:
                metrics.add(state)

    def refuse_differences(self, values: dict[str, Any]) -> None:
        """Raise InputError in all processes unless they agree: another machine's copy of the data may be another.

        Args:
            values: of this process, by what they are called.
        """
        own: list[Any] = [None] * self.size
        if self.several:
            with together():
                dist.all_gather_object(own, values)
            for rank, theirs in enumerate(own):
                for what in values:
                    if theirs[what] != own[0][what]:
                        raise InputError(
                            f"process {rank} of {self.size} has other {what} than process 0; give all machines the same"
                        )

    def wait(self) -> None:
        """Until all are here."""
        if self.several:
            with together():
                dist.all_reduce(torch.zeros(()))  # by gloo; a barrier would be the GPUs'


ALONE = Processes()


class _Sum(torch.autograd.Function):
    """The sum over all processes. Each goes on from it alike, so each one's part has the sum's own gradient."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        del ctx
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        del ctx
        return gradients[0]


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that torchrun (accelerate launch, ``train.devices``) started; ``ALONE`` where there are none.

    An error that one of them has told is told by no other: what is raised then is ``SaidElsewhere``.

    Raises:
        InputError: the environment does not say where the others are.
        Lost: another process is gone.
    """
    if started_processes() <= 1:
        yield ALONE
        return
    if dist.is_initialized():
        yield _own_place()
        return
    store = _join()
    try:
        yield _own_place()
    except (InputError, OSError, Interrupted, Stopped, Lost) as error:
        if not _first_to_say(store, error):
            raise SaidElsewhere(getattr(error, "exit_code", 2)) from error
        raise
    # Not after an error: it might wait for those that are gone.
    dist.destroy_process_group()


def _join() -> dist.Store:
    try:
        store, rank, size = _meet()
    except (ValueError, KeyError) as error:
        raise InputError(
            f"WORLD_SIZE says that there are several processes, and the rest is missing ({error}); start with torchrun"
        ) from error
    # Plain values and what a host decides go by gloo, which notices at once when a process is gone.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    with together():
        run = dist.PrefixStore(f"run{next(_RUNS)}", store)
        dist.init_process_group(backend, store=run, rank=rank, world_size=size, timeout=_PATIENCE)
    return dist.PrefixStore("visionlora", store)


_RUNS = itertools.count()
"""A program may train several times."""


@cache
def _meet() -> tuple[dist.Store, int, int]:
    """The store that all know, this process's rank, and how many there are; one store for all runs of a program."""
    with together():
        store, rank, size = next(dist.rendezvous("env://", timeout=_PATIENCE))
    return store, rank, size


def _own_place() -> Processes:
    return Processes(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK") or 0))


def _first_to_say(store: dist.Store, error: BaseException) -> bool:
    """Whether nobody else has said what ends the run. Where nobody can know, each says it."""
    with suppress(RuntimeError):
        if isinstance(error, Lost) and store.check([LAUNCHER]):
            return False  # it knows better who was lost
        return store.add("said", 1) == 1
    return True


LAUNCHER = "launcher"
"""Key in the store where ``launch`` has started the processes."""


def _started_by_an_agent() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


@contextmanager
def together() -> Iterator[None]:
    """Something that all processes do: it fails where one is gone."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise Lost(str(error).partition("\n")[0]) from error
