"""One run of each method: ``visionlora train`` with three of its methods, and PEFT in the loop that people write."""

import tempfile
import warnings
from argparse import Namespace
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import nn

from visionlora.config import check_config
from visionlora.sections import RunConfig
from visionlora.studies.memory import peak_of_process
from visionlora.tasks.base import SetUp
from visionlora.tasks.evaluation import placed, score
from visionlora.tasks.registry import task_of
from visionlora.training.run import pick_device, train
from visionlora.training.state import as_trained
from visionlora.training.stopwatch import Stopwatch

METHODS = ("lora", "head", "full", "peft")


class Ran(TypedDict):
    """Seconds from the first batch to the last checkpoint, evaluations included; training images in such a second;
    peak bytes; seconds by part."""

    seconds: float
    images_per_s: float
    peak: int
    parts: dict[str, float]


def run_method(method: str, arguments: Namespace) -> Ran:
    """Train once, in this process."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        config = _config(method, arguments, Path(folder) / "run")
        parts = _peft(config) if method == "peft" else train(config, quiet=True).spent
    images = sum(1 for path in (arguments.data / "train").rglob("*") if path.is_file()) * arguments.epochs
    seconds = sum(parts.values())
    return Ran(seconds=seconds, images_per_s=images / seconds, peak=peak_of_process(), parts=parts)


def _config(method: str, arguments: Namespace, out: Path) -> RunConfig:
    return check_config(
        {
            "task": "classification",
            "model": {"name": arguments.model, "pretrained": False, "img_size": arguments.size},
            "data": {"root": str(arguments.data), "workers": arguments.workers},
            "lora": {"rank": arguments.rank, "alpha": 2 * arguments.rank},
            "train": {
                "method": "lora" if method == "peft" else method,
                "epochs": arguments.epochs,
                "batch_size": arguments.batch,
                "channels_last": arguments.channels_last,
                "memory": arguments.memory,
            },
            "out": str(out),
        }
    )


def _peft(config: RunConfig) -> dict[str, float]:
    """A loop of one's own over the same batches: AdamW, a log line every tenth step, an evaluation every epoch."""
    from peft import LoraConfig, get_peft_model

    setup, device = task_of(config.task).set_up(config), pick_device("auto")
    plain, head = setup.built.model, setup.built.head
    layers = [
        name
        for name, layer in plain.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and getattr(layer, "groups", 1) == 1 and name not in head
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lora = LoraConfig(r=config.lora.rank, lora_alpha=config.lora.alpha, target_modules=layers, modules_to_save=head)
        model: Any = get_peft_model(plain, lora).to(device)
    if config.train.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=config.train.lr)
    watch, step = Stopwatch(), 0
    for epoch in range(config.train.epochs):
        model.train()
        for batch in setup.training.train_loader(setup.training.train_batches(epoch)):
            batch = placed(batch, device, config.train.channels_last)
            watch.lap("data")
            loss = setup.training.loss(model, batch)
            watch.lap("forward")
            loss.backward()
            watch.lap("backward")
            optimizer.step()
            optimizer.zero_grad()
            watch.lap("optimizer")
            step += 1
            if step % config.train.log_every == 0:
                print(f"step {step}: {loss.item():.4f}")
                watch.lap("logging")
        _evaluate(config, setup, model, device)
        watch.lap("evaluation")
        model.save_pretrained(config.out)
        watch.lap("checkpoints")
    return watch.seconds


def _evaluate(config: RunConfig, setup: SetUp, model: nn.Module, device: torch.device) -> None:
    trained = as_trained(config, setup, model.eval())
    score(trained, setup.val, config.train.batch_size, config.data.workers, device)
