"""visionlora and PEFT, as the coverage checks see them."""

import re
import warnings
from collections.abc import Iterator

from torch import nn

import visionlora as vl
from benchmarks.coverage_checks import Library

RANK = 8


def _attach(model: nn.Module, names: list[str]) -> nn.Module:
    vl.attach(model, vl.LoRAConfig(rank=RANK, targets=names))
    return model


def _factors(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            yield name.partition(".adapters.")[0], parameter


VISIONLORA = Library("visionlora", _attach, _factors, vl.merge, tolerance=0.0)


def _peft_attach(model: nn.Module, names: list[str]) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    # PEFT's layer for nn.MultiheadAttention adapts out_proj with it.
    inside = [n for n in names if isinstance(model.get_submodule(n.rpartition(".")[0]), nn.MultiheadAttention)]
    pattern = "|".join(re.escape(name) for name in names if name not in inside)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model(model, LoraConfig(r=RANK, target_modules=pattern))


def _peft_factors(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            layer = name.removeprefix("base_model.model.").replace(".base_layer", "").partition(".lora_")[0]
            yield layer, parameter


def _peft_merge(model: nn.Module) -> nn.Module:
    return model.merge_and_unload()


# A branch beside the layer adds up in another order than a merged weight.
PEFT = Library("PEFT", _peft_attach, _peft_factors, _peft_merge, tolerance=1e-4)
