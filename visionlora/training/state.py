"""A run at work: all that the loop and what surrounds it share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from visionlora.adapters.saving import save_adapter
from visionlora.data.images import readable_images
from visionlora.data.loading import Key
from visionlora.data.picture_statistics import LEAST, PictureStatistics, evenly
from visionlora.errors import InputError
from visionlora.sections import RunConfig, TrainSection
from visionlora.tasks.base import SetUp, Task
from visionlora.tasks.evaluation import evaluation_copy
from visionlora.tasks.models import Trained
from visionlora.tasks.protocols import Metrics
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import ADAPTER, MODEL, PICTURES, write_plain
from visionlora.training.average import Average
from visionlora.training.checkpoint import Progress
from visionlora.training.distributed import ALONE, Processes
from visionlora.training.gate import Gate
from visionlora.training.sharded import ShardedBase
from visionlora.training.stopwatch import Stopwatch

T = TypeVar("T")


@dataclass(frozen=True)
class Evaluated:
    """A plain model's evaluation.

    Attributes:
        digest: of the model; see ``fingerprint.digest``.
        metrics: what it came to.
    """

    digest: str
    metrics: Metrics


@dataclass
class RunState:
    """What a run is made of.

    Attributes:
        config: the whole run.
        setup: what its task made of it; the model in it trains, on its device.
        monitor: the score that decides which epoch is best.
        device: where it computes.
        optimizer, scaler: as ``progress`` left them.
        base: fingerprint of the frozen tensors, for checkpoints.
        data: fingerprint of the images and their labels, for checkpoints.
        progress: how far it is.
        watch: what its time goes into.
        processes: that train it together.
        average: of what trains, which is evaluated and saved in its place.
        sharded: the frozen base, where the processes hold it together.
        gate: what an epoch must retain to be the best, if that is asked for.
        best: the best epoch's evaluation, if it was in this process and alone.
    """

    config: RunConfig
    setup: SetUp
    monitor: str
    device: torch.device
    optimizer: torch.optim.Optimizer
    scaler: "torch.amp.GradScaler"
    base: str
    data: dict[str, Any]
    average: Average
    progress: Progress = field(default_factory=Progress)
    processes: Processes = ALONE
    watch: Stopwatch = field(default_factory=Stopwatch)
    sharded: ShardedBase | None = None
    gate: Gate | None = None
    best: Evaluated | None = None

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.config.out

    @property
    def train(self) -> TrainSection:
        """The settings of training."""
        return self.config.train

    @property
    def task(self) -> Task:
        """The run's."""
        return task_of(self.config.task)

    @property
    def model(self) -> nn.Module:
        """What trains."""
        model: nn.Module = self.setup.built.model
        return model

    def files(self, batches: Sequence[Sequence[Key]]) -> list[str]:
        """The files of some training batches, by their keys; none where the task doesn't say which."""
        if self.setup.train is None:
            return []
        paths = self.task.files(self.setup.train)
        return list(dict.fromkeys(str(paths[index]) for batch in batches for _, index in batch))

    @cached_property
    def pictures(self) -> dict[str, Any] | None:
        """What the training images look like, to know later whether a camera still sees the same; None of too few."""
        if self.setup.train is None:
            return None
        paths = list(dict.fromkeys(self.task.files(self.setup.train)))
        if len(paths) < LEAST:
            return None
        found = PictureStatistics.of(readable_images(paths[place] for place in evenly(len(paths))))
        return None if found is None else found.to_dict()

    @contextmanager
    def evaluated(self) -> Iterator[Trained]:
        """What would be saved now, in eval mode: a merged copy, or where the base is sharded the model in its place.

        Raises:
            InputError: the weights are not finite.
        """
        with self.average.shown():
            if self.sharded is not None:
                yield as_trained(self.config, self.setup, self._finite().eval())
                return
            plain = evaluation_copy(self.model)
        yield as_trained(self.config, self.setup, plain)

    def _finite(self) -> nn.Module:
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter).all():
                raise InputError(f"{name} is not finite")
        return self.model

    def from_main(self, compute: Callable[[], T]) -> T:
        """As ``Processes.from_main``, of what may run the model."""
        return (self.processes if self.sharded is None else self.sharded).from_main(compute)

    @property
    def in_step(self) -> Callable[[], AbstractContextManager[None]]:
        """What is around an evaluation's forward passes; see ``score``."""
        return nullcontext if self.sharded is None else self.sharded.in_step

    def save_best(self, metrics: Metrics) -> None:
        """Write the adapter, or the whole model where every weight trains, with what one must know to use it."""
        setup = self.setup
        pictures = {} if self.pictures is None else {PICTURES: self.pictures}
        about: dict[str, Any] = {
            "task": self.config.task,
            **self.task.describe(setup.val, metrics),
            **setup.about,
            "model": setup.settings.model_dump(mode="json"),
            "seed": self.train.seed,
            "scores": metrics.scores(),
            **pictures,
        }
        classes, preprocessing = setup.classes, setup.preprocessing.to_dict()
        with self.average.shown():
            if self.train.method != "full":
                path = self.folder / ADAPTER
                save_adapter(self.model, path, classes=classes, preprocessing=preprocessing, extra=about)
            else:
                write_plain(self.model, self.folder / MODEL, classes, preprocessing, about)


def as_trained(config: RunConfig, setup: SetUp, model: nn.Module) -> Trained:
    """A plain model on its way, as its task evaluates one."""
    trained = Trained(config.task, setup.built, setup.classes, setup.preprocessing, config.out, {})
    return trained.with_model(model)
