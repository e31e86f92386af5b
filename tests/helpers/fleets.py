"""Adapters' files for several cameras over one base, none at its start."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import is_factor, perturb


def save_cameras(base: nn.Module, folder: Path, *configs: dict[str, Any], scale: float = 0.1) -> dict[str, Path]:
    """``camera0``, ``camera1`` ...: an adapter of each config, all that trains moved away from its start."""
    files = {}
    for number, config in enumerate(configs):
        model = copy.deepcopy(base)
        vl.attach(model, vl.LoRAConfig(**{"rank": 2, **config}))
        move(model, scale)
        files[f"camera{number}"] = folder / f"{number}.safetensors"
        vl.save_adapter(model, files[f"camera{number}"])
    return files


def move(model: nn.Module, scale: float = 0.1) -> None:
    """Factors, heads and the statistics that the active adapter owns, away from where they are."""
    perturb(model, scale)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and not is_factor(name):
                parameter.add_(scale * torch.randn_like(parameter))


def one_by_one(fleet: vl.Fleet, images: Any, cameras: list[str]) -> list[Any]:
    """What each camera's adapter, switched on alone, answers for its image; a list of answers to batches of one."""
    answers = []
    with torch.no_grad():
        for at, camera in enumerate(cameras):
            answers.append(fleet.switch(camera)(images[at : at + 1]))
    fleet.switch(None)
    return answers


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest, of the largest expected number."""
    return float((found - expected).abs().max() / expected.abs().max())
