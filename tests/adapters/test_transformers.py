"""Vision models of transformers, which are called with keywords and answer in dataclasses."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import perturb
from helpers.tiny_transformers import DETECTORS, OTHERS
from visionlora.adapters.example import tensors_in
from visionlora.adapters.layer import adapted_layers

ALL = {**DETECTORS, **OTHERS}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def outputs(model: nn.Module, example: dict[str, Any]) -> list[Tensor]:
    torch.manual_seed(5)
    return [tensor for tensor in tensors_in(model(**example)) if tensor.is_floating_point()]


@pytest.mark.parametrize("name", ALL)
def test_they_train_are_verified_folded_and_merged(name: str) -> None:
    make, call_with = ALL[name]
    torch.manual_seed(0)
    model, example = make().eval(), call_with()
    with torch.no_grad():
        base = outputs(model, example)
        vl.attach(model, vl.LoRAConfig(rank=2))
        # Not to the last bit: attention's kernels are chosen by what requires gradients.
        torch.testing.assert_close(outputs(model, example), base, atol=1e-5, rtol=1e-4)
    perturb(model)
    found = vl.verify(model, example)
    sum(output.square().mean() for output in outputs(model, example) if output.requires_grad).backward()
    idle = {effect.layer for effect in found.effects if effect.remark}
    for path, layer in adapted_layers(model):
        gradient = layer.adapters["default"]["weight"].lora_B.grad
        assert path in idle or (gradient is not None and gradient.any()), path
    assert len(idle) < len(found.effects) / 2
    model.train()
    sum(output.square().mean() for output in outputs(model, example) if output.requires_grad).backward()
    model.eval()
    with torch.no_grad():
        adapted = outputs(model, example)
        vl.fold_batchnorm(model, example)
        torch.testing.assert_close(outputs(model, example), adapted, atol=1e-4, rtol=1e-3)
        vl.merge(model)
        torch.testing.assert_close(outputs(model, example), adapted, atol=1e-4, rtol=1e-3)


def test_batchnorm_of_a_model_that_wants_no_labels_in_training_is_folded() -> None:
    make, call_with = DETECTORS["RT-DETRv2"]
    model = make()
    vl.attach(model, vl.LoRAConfig(rank=2))
    assert len(vl.fold_batchnorm(model, call_with())) > 20
