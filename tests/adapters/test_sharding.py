"""A base that two processes hold together computes, bit for bit or to rounding, what the whole one does."""

import gc
import importlib
import weakref
from pathlib import Path

import pytest
import timm
import torch
import torch.distributed as dist
import torchvision
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import perturb
from helpers.processes import exit_codes, start_processes
from visionlora.adapters.blocks import blocks
from visionlora.adapters.fingerprint import fingerprints
from visionlora.adapters.layer import adapted_layers, is_adapted
from visionlora.adapters.loading import restore_adapter
from visionlora.adapters.sharding import ShardedBlock, frozen_bytes, shard, whole_layers
from visionlora.training.distributed import joined
from visionlora.training.layer_stats import layer_statistics

CPU = torch.device("cpu")


def weights(model: nn.Module) -> set[nn.Parameter]:
    return {parameter for parameter in model.parameters() if parameter.dim() > 1}


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        found: nn.Module = (
            torchvision.models.get_model(name.removeprefix("torchvision/"))
            if name.startswith("torchvision/")
            else timm.create_model(name)
        )
    return found


@pytest.mark.parametrize(
    ("name", "expected", "share"),
    [
        ("test_vit", ["patch_embed", *(f"blocks.{index}" for index in range(6))], 0.8),  # the rest is its large head
        ("resnet18", ["layer1", *(f"layer{stage}.{index}" for stage in (2, 3, 4) for index in (0, 1))], 0.95),
        ("torchvision/vit_b_32", [*(f"encoder.layers.encoder_layer_{index}" for index in range(12)), "heads"], 0.97),
        ("torchvision/vgg11", ["features", "classifier"], 1.0),
    ],
)
def test_blocks_are_what_a_model_runs_in_turn(name: str, expected: list[str], share: float) -> None:
    model = on_meta(name)
    found = blocks(model, weights(model))
    assert [path for path, _ in found] == expected
    inside = sum(parameter.numel() for _, block in found for parameter in weights(block))
    assert share <= inside / sum(parameter.numel() for parameter in weights(model)) <= 1


@pytest.mark.parametrize("name", ["test_convnext", "torchvision/mobilenet_v2"])
def test_blocks_are_called_and_lie_in_no_other(name: str) -> None:
    model = on_meta(name)
    found = blocks(model, weights(model))
    modules = [module for _, block in found for module in block.modules()]
    assert len(modules) == len(set(modules)) and len(found) > 10
    called: set[nn.Module] = set()
    for _, block in found:
        block.register_forward_pre_hook(lambda module, _inputs: called.add(module))
    model.eval()(torch.empty(1, 3, 64, 64, device="meta"))
    assert called == {block for _, block in found}


def adapted(name: str) -> nn.Module:
    torch.manual_seed(0)
    settings = {"zero_init_last": False} if "resnet" in name else {"img_size": 32} if "vit" in name else {}
    model: nn.Module = timm.create_model(name, num_classes=3, drop_path_rate=0.0, **settings)
    vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=[model.pretrained_cfg["classifier"]]))
    perturb(model, 0.5)
    vl.fold_batchnorm(model.train(), torch.randn(1, 3, 32, 32))
    return model


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    model.zero_grad()
    model(x).square().sum().backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def most_held(model: nn.Module, x: Tensor) -> list[int]:
    """Frozen bytes at each layer of a forward, and at each in its backward."""
    seen: list[int] = []

    def look(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
        seen.append(frozen_bytes(model))
        output.register_hook(lambda _gradient: seen.append(frozen_bytes(model)))

    hooks = [layer.register_forward_hook(look) for layer in model.modules() if is_adapted(layer)]
    model(x).sum().backward()
    for hook in hooks:
        hook.remove()
    return seen


def same_as_whole(name: str, folder: Path) -> None:
    """All that one of two processes sees."""
    whole, model = adapted(name), adapted(name)
    bases = [weakref.ref(layer._parameters["weight"]) for _, layer in adapted_layers(model)]
    x = torch.randn(2, 3, 32, 32)
    found = shard(model, x[:1], CPU)

    # Each keeps half of what is in blocks, and while one of them runs that one.
    in_blocks = [sum(both.numel() * 4 for _, both in block.weights) for block in found]
    kept = frozen_bytes(whole) - sum(in_blocks) // 2
    assert frozen_bytes(model) == kept < 0.65 * frozen_bytes(whole)
    gc.collect()
    assert sum(base() is None for base in bases) == len([1 for block in found for _ in block.weights])
    seen = most_held(model, x)
    assert len(seen) == 2 * len(bases) and max(seen) == kept + max(in_blocks)
    assert frozen_bytes(model) == kept

    # What is computed in training and in evaluation, and what is written.
    torch.testing.assert_close(model(x), whole(x), rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(gradients(model, x), gradients(whole, x), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), whole.eval()(x), rtol=1e-5, atol=1e-6)
    assert layer_statistics(model) == pytest.approx(layer_statistics(whole), rel=1e-4)
    assert frozen_bytes(model) == kept
    assert fingerprints(model, "default") == fingerprints(whole, "default")
    for each, file in ((model, "sharded"), (whole, "whole")):
        vl.save_adapter(each, folder / file)
    assert (folder / "sharded").read_bytes() == (folder / "whole").read_bytes()
    perturb(whole, 0.1)
    vl.save_adapter(whole, folder / "other")
    restore_adapter(model, folder / "other")
    torch.testing.assert_close(model(x), whole(x), rtol=1e-5, atol=1e-6)
    refuses_what_it_cannot(model, found[0])


def refuses_what_it_cannot(model: nn.Module, block: ShardedBlock) -> None:
    layer = next(module for module in block.module.modules() if is_adapted(module))
    there = layer._parameters["weight"]
    assert layer.weight is there and type(there).__name__ == "DTensor"  # which no plain input can meet
    other = nn.Parameter(there.detach().clone(), requires_grad=False)
    for value in (other, nn.Parameter(torch.zeros(there.shape)), None):
        with pytest.raises(vl.InputError, match=r"weight of an adapted"):
            layer.weight = value
    assert layer._parameters["weight"] is there
    with pytest.raises(vl.InputError, match=r"is a DTensor.*train\.shard_base=true"):
        vl.attach(model, vl.LoRAConfig(rank=2), "second")
    for merge in (vl.merge, vl.merged):
        with pytest.raises(vl.InputError, match=r"is sharded, and nothing can be merged"):
            merge(model)
    for index, (path, inner) in enumerate(whole_layers(model)):
        if inner is layer:
            assert path and not hasattr(inner.weight, "to_local")
        if index == 2:
            break  # what was gathered is freed
    assert type(layer._parameters["weight"]).__name__ == "DTensor"


class Bypassing(nn.Module):
    """Runs one of its blocks twice, and one by its ``forward``, past all hooks; one is too small for two processes."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [(4, 4), (4, 4), (4, 1)]
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(*size), nn.Tanh()) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.blocks
        out: Tensor = last(second.forward(first(first(x))))
        return out


def shards_only_what_it_sees_running() -> None:
    torch.manual_seed(0)
    model, x = Bypassing(), torch.randn(2, 4)
    vl.attach(model, vl.LoRAConfig(rank=1))
    perturb(model, 0.5)
    expected = model(x)
    calls = shard(model, x, CPU)
    assert [block.path for block in calls] == ["blocks.0", "blocks.0"]
    torch.testing.assert_close(model(x), expected)
    model(x).sum().backward()
    whole = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with pytest.raises(vl.InputError, match=r"can't be sharded: no part of this Sequential"):
        shard(whole.requires_grad_(False), x, CPU)


class Part(nn.Module):
    """Its output may be a view."""

    def __init__(self, view: bool) -> None:
        super().__init__()
        self.linear, self.view = nn.Linear(4, 4), view

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out.t() if self.view else out


class InPlace(nn.Module):
    """Changes the outputs of its blocks in place."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Part(view) for view in (True, False, True))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
            x *= 2
        return x


def follows_outputs_that_are_changed_in_place() -> None:
    torch.manual_seed(0)
    models, x = [InPlace(), InPlace()], torch.randn(4, 4)
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        torch.manual_seed(0)
        vl.attach(model, vl.LoRAConfig(rank=1))
        perturb(model, 0.5)
    shard(models[1], x, CPU)
    for mine, theirs in zip(*(gradients(model, x) for model in models), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes_that_hold_the_base_together(tmp_path: Path) -> None:
    importlib.import_module("torch.distributed.fsdp")  # before the processes are forked, for it takes seconds

    def work(rank: int) -> None:
        with joined():
            torch.manual_seed(rank)
            for name in ("test_vit", "test_resnet"):
                (folder := tmp_path / f"{name}{rank}").mkdir()
                same_as_whole(name, folder)
            shards_only_what_it_sees_running()
            follows_outputs_that_are_changed_in_place()

    assert exit_codes(start_processes(2, work)) == [0, 0]
