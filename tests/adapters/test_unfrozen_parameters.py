"""Single parameters, and heads under several names, that train fully."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import perturb
from visionlora.adapters.header import read_header

X = torch.randn(2, 3, 32, 32)


@pytest.fixture
def base() -> nn.Module:
    return timm.create_model("test_vit", num_classes=10, img_size=32).eval()


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad and ".lora_" not in name}


def step(model: nn.Module, loss: Callable[[], Tensor]) -> None:
    perturb(model, 0.1)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    loss().backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("unfreeze", "names"),
    [
        (["pos_embed"], {"pos_embed"}),
        (["pos_embed", "cls_token", "head"], {"pos_embed", "cls_token", "head.weight", "head.bias"}),
        (["blocks.[01].attn.qkv.bias"], {"blocks.0.attn.qkv.bias", "blocks.1.attn.qkv.bias"}),
        (["re:(cls|reg)_token", "norm"], {"cls_token", "norm.weight", "norm.bias"}),
        (["norm.bias"], {"norm.bias"}),
    ],
)
def test_a_parameter_is_unfrozen_by_name(base: nn.Module, tmp_path: Path, unfreeze: list[str], names: set[str]) -> None:
    model, start = copy.deepcopy(base), base.state_dict()
    report = vl.attach(model, vl.LoRAConfig(rank=2, targets=["attn.qkv"], unfreeze=unfreeze))
    assert trained(model) == names
    assert sum(size for _, size in report.unfrozen) == sum(start[name].numel() for name in names)
    step(model, lambda: model(X).square().sum())
    changed = {
        name for name, tensor in model.state_dict().items() if name in start and not torch.equal(tensor, start[name])
    }
    assert changed == names
    with vl.disabled(model):
        assert torch.equal(model(X), base(X))
    vl.save_adapter(model, tmp_path / "a.safetensors")
    fresh = copy.deepcopy(base)
    vl.load_adapter(fresh, tmp_path / "a.safetensors")
    assert torch.equal(fresh(X), model(X)) and trained(fresh) == names
    assert not set(read_header(tmp_path / "a.safetensors").base) & names
    assert torch.equal(vl.merged(model)(X), model(X))
    vl.detach(model)
    assert torch.equal(model(X), base(X))


def test_two_adapters_have_their_own_parameters(base: nn.Module) -> None:
    """A module of which one adapter owns this and another that."""
    model = copy.deepcopy(base)
    for name, unfreeze in {"a": ["pos_embed"], "b": ["cls_token"]}.items():
        vl.attach(model, vl.LoRAConfig(rank=2, targets=["attn.qkv"], unfreeze=unfreeze), name=name)
        step(model, lambda: model(X).square().sum())
    outputs = {}
    for name in ("a", "b", "a", "b"):
        vl.activate(model, name)
        assert torch.equal(outputs.setdefault(name, model(X)), model(X))
        mine, other = (model.pos_embed, model.cls_token) if name == "a" else (model.cls_token, model.pos_embed)
        assert not any(torch.equal(mine, tensor) for tensor in (base.pos_embed, base.cls_token))
        assert any(
            torch.equal(other, tensor) for tensor in (base.pos_embed, base.cls_token) if other.shape == tensor.shape
        )
    vl.activate(model, [])
    assert torch.equal(model(X), base(X))
    with pytest.raises(vl.InputError, match="both have their own tensors of the model itself"):
        vl.activate(model, ["a", "b"])


def test_a_weight_is_adapted_or_unfrozen(base: nn.Module) -> None:
    report = vl.attach(base, vl.LoRAConfig(rank=2, unfreeze=["blocks.0.mlp.fc1.weight"]))
    assert "blocks.0.mlp.fc1" not in [layer.path for layer in report.adapted]
    assert "blocks.0.mlp.fc1.weight" in trained(base)
    assert "its weight is unfrozen and trains fully" in str(report)
    vl.detach(base)
    with pytest.raises(vl.InputError, match="which can't be adapted: its weight is unfrozen"):
        vl.attach(base, vl.LoRAConfig(targets=["head"], unfreeze=["head.weight"]))


def test_an_unknown_name_is_answered_with_the_nearest_parameter(base: nn.Module) -> None:
    with pytest.raises(vl.InputError, match=r"matches no module and no parameter \(did you mean 'pos_embed'\?\)"):
        vl.attach(base, vl.LoRAConfig(unfreeze=["pos_embd"]))


def test_a_parameter_of_batchnorm_trains_and_its_statistics_stay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    vl.attach(model, vl.LoRAConfig(rank=2, targets=["3"], unfreeze=["1.weight"]))
    mean = model[1].running_mean.clone()
    x = torch.randn(2, 3, 4, 4)
    step(model.train(), lambda: model(x).square().sum())
    assert trained(model) == {"1.weight"} and torch.equal(model[1].running_mean, mean)
    assert vl.fold_batchnorm(model, x) == []


class Detector(nn.Module):
    """Heads as transformers ties them: one layer several times in a list, and again inside the decoder."""

    def __init__(self, ties: str) -> None:
        super().__init__()
        self.decoder = nn.Module()
        self.decoder.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        head = nn.Linear(4, 2)
        self.class_embed = nn.ModuleList(nn.Linear(4, 2) for _ in range(3))
        self.decoder.class_embed = self.class_embed
        if ties == "one layer several times":
            self.class_embed = nn.ModuleList([head] * 3)
            self.decoder.class_embed = None
        elif ties == "parameters":
            self.decoder.class_embed = copy.deepcopy(self.class_embed)
            for one, other in zip(self.class_embed, self.decoder.class_embed, strict=True):
                other.weight, other.bias = one.weight, one.bias

    def forward(self, x: Tensor) -> Tensor:
        heads = self.decoder.class_embed or self.class_embed
        for layer, head, outer in zip(self.decoder.layers, heads, self.class_embed, strict=True):
            x = layer(x).relu()
            x = x + outer(x).repeat(1, 2) + head(x).mean()
        return x


@pytest.mark.parametrize("ties", ["a list under two names", "one layer several times", "parameters"])
def test_a_tied_head_is_unfrozen_saved_and_loaded(ties: str, tmp_path: Path) -> None:
    base = Detector(ties)
    model, x = copy.deepcopy(base), torch.randn(3, 4)
    vl.attach(model, vl.LoRAConfig(rank=2, targets=["decoder.layers.*"], unfreeze=["class_embed"]))
    assert all(p.requires_grad for p in model.class_embed.parameters())
    step(model, lambda: model(x).square().sum())
    assert not torch.equal(model.class_embed[0].weight, base.class_embed[0].weight)
    with vl.disabled(model):
        assert torch.equal(model(x), base(x))
    vl.save_adapter(model, tmp_path / "a.safetensors")
    fresh = copy.deepcopy(base)
    vl.load_adapter(fresh, tmp_path / "a.safetensors")
    assert torch.equal(fresh(x), model(x))
    # Onto a base whose head is another: it is the adapter's own.
    other = copy.deepcopy(base)
    with torch.no_grad():
        for parameter in other.class_embed.parameters():
            parameter.add_(1)
    vl.load_adapter(other, tmp_path / "a.safetensors")
    assert torch.equal(other(x), model(x))
    vl.attach(model, vl.LoRAConfig(rank=2, targets=["decoder.layers.*"], unfreeze=["class_embed"]), name="second")
    with vl.disabled(model):
        assert torch.equal(model(x), base(x))
    vl.activate(model, "default")
    assert torch.equal(model(x), fresh(x))
    assert all(p.requires_grad for p in model.class_embed.parameters())
    assert torch.equal(vl.merged(model)(x), fresh(x))
    vl.detach(model)
    assert torch.equal(model(x), base(x))
