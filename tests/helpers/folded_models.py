"""Models whose BatchNorm has something to do, and a comparison of them folded and not."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

import visionlora as vl
from helpers.cases import perturb
from helpers.comparing import agree, gradients

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, FrozenBatchNorm2d)


def lively(model: nn.Module) -> nn.Module:
    """Random statistics and gains, so that folding has something to do and nothing is dead."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, NORMS):
                if module.running_mean is not None:
                    module.running_mean.normal_(std=0.5)
                    module.running_var.uniform_(0.5, 2)
                if module.weight is not None:
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(std=0.5)
    return model


def norms_of(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, NORMS)]


def adapted(model: nn.Module, **config: Any) -> nn.Module:
    vl.attach(lively(model), vl.LoRAConfig(**{"rank": 2, **config}))
    perturb(model, 0.05)
    return model


def compare(model: nn.Module, x: Tensor, tolerance: float = 1e-9) -> list[str]:
    """Fold; output and all gradients must stay, under the same random numbers."""
    torch.manual_seed(7)
    expected = gradients(model, x)
    folded = vl.fold_batchnorm(model, x)
    torch.manual_seed(7)
    agree(gradients(model, x), expected, tolerance)
    return folded
