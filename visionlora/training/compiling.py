"""``train.compile``: torch.compile for the steps of a run."""

import torch
from torch import nn

from visionlora.errors import InputError
from visionlora.sections import TrainSection


def check_compile(train: TrainSection, device: torch.device) -> None:
    """Raise InputError for CUDA graphs without a GPU, which has no kernels to record."""
    if train.compile == "reduce-overhead" and device.type != "cuda":
        raise InputError(
            f"train.compile=reduce-overhead records CUDA graphs, and the device is {device}; give train.compile=default"
        )


def compile_steps(model: nn.Module, task: str, train: TrainSection) -> None:
    """Have the model's calls compiled, in place: names, copies and files stay those of the plain model.

    What is made of boxes (anchors, matching, sampling) has other shapes in every step, so of a detector the backbone
    is compiled. Evaluations run a merged copy, which is not compiled.

    Args:
        model: in whose steps; prepared, folded and on its device.
        task: of the run.
        train: whose ``compile`` is ``off`` or a mode of ``torch.compile``.
    """
    if train.compile != "off":
        part = model.get_submodule("backbone") if task == "detection" else model
        part.compile(mode=train.compile)
