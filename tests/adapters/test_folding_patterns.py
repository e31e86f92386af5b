"""Which BatchNorm can be folded: what a module does with a convolution, and of what kind the two are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d, DropPath, StdConv2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import weight_norm as old_weight_norm
from torch.nn.utils.parametrizations import weight_norm
from torchvision.ops import FrozenBatchNorm2d

import visionlora as vl
from helpers.comparing import agree, gradients
from helpers.folded_models import adapted, compare


class Net(nn.Module):
    """Modules to be put together in any way by ``run``."""

    def __init__(self, run: Callable[["Net", Tensor], Any], **modules: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.run = run
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * 2


def changed(x: Tensor, change: Callable[[Tensor], object]) -> Tensor:
    change(x)
    return x


def zero_first(x: Tensor) -> None:
    x[:, 0] = 0


FOLDED: dict[str, tuple[Callable[[Net, Tensor], Any], list[str]]] = {
    "one after the other": (lambda m, x: m.bn2(m.conv2(m.bn(m.conv(x)).relu())), ["bn", "bn2"]),
    "both called twice": (lambda m, x: m.bn(m.conv(x)) + m.bn(m.conv(x * 2)), ["bn"]),
    "read by another convolution": (lambda m, x: (lambda y: m.bn(y) + m.conv2(y))(m.conv(x)), []),
    "read for nothing": (lambda m, x: (lambda y: (y.exp(), m.bn(y))[1])(m.conv(x)), []),
    "through Sequential and Identity": (lambda m, x: m.between(m.conv(x)), ["bn"]),
    "BatchNorm's output used twice": (lambda m, x: (lambda y: y * 2 + m.conv2(y))(m.bn(m.conv(x))), ["bn"]),
    "changed in place after BatchNorm": (lambda m, x: m.bn(m.conv(x)).mul_(2).relu_(), ["bn"]),
    "in a nested answer": (
        lambda m, x: {"a": [m.bn(m.conv(x))], "b": (m.bn2(m.conv2(x.repeat(1, 2, 1, 1))),)},
        ["bn", "bn2"],
    ),
    "convolution read beside": (lambda m, x: (lambda y: m.bn(y) + y)(m.conv(x)), []),
    "convolution read beside, first": (lambda m, x: (lambda y: y.relu() + m.bn(y))(m.conv(x)), []),
    "convolution in the answer": (lambda m, x: (lambda y: [m.bn(y), {"raw": y}])(m.conv(x)), []),
    "convolution into two BatchNorms": (lambda m, x: (lambda y: m.bn(y) + m.bn2(y))(m.conv(x)), []),
    "convolution into a BatchNorm twice": (lambda m, x: (lambda y: m.bn(y) + m.bn(y))(m.conv(x)), []),
    "convolution with two BatchNorms in turn": (lambda m, x: m.bn(m.conv(x)) + m.bn2(m.conv(x * 2)), []),
    "BatchNorm after two convolutions in turn": (
        lambda m, x: m.bn(m.conv(x)) + m.bn(m.conv2(m.conv(x).relu())),
        [],
    ),
    "convolution called once more alone": (lambda m, x: m.bn(m.conv(x)) + m.conv(x * 2), []),
    "BatchNorm called on something else, too": (
        lambda m, x: m.bn(m.conv(x)) + m.bn(x.repeat(1, 2, 1, 1)),
        [],
    ),
    "BatchNorm alone": (lambda m, x: m.bn(x.repeat(1, 2, 1, 1)), []),
    "after a sum": (lambda m, x: m.bn(m.conv(x) + 1), []),
    "after a sum in place": (lambda m, x: m.bn(m.conv(x).add_(1)), []),
    "after an addition to it": (lambda m, x: m.bn(changed(m.conv(x), lambda y: y.__iadd__(1))), []),
    "after an assignment": (lambda m, x: m.bn(changed(m.conv(x), zero_first)), []),
    "after an assignment to a part": (lambda m, x: m.bn(changed(m.conv(x), lambda y: y[:, 0].zero_())), []),
    "after a pool": (lambda m, x: m.bn(F.avg_pool2d(m.conv(x), 2)), []),
    "after a concatenation": (lambda m, x: m.bn(torch.cat([m.conv(x)[:, :3], m.conv(x)[:, 3:]], 1)), []),
    "after a concatenation of one": (lambda m, x: m.bn(torch.cat([m.conv(x)])), []),
    "after a slice": (lambda m, x: m.bn(m.conv(x)[:, :, 1:]), []),
    "after a view": (lambda m, x: m.bn(m.conv(x).view(-1, 6, 8, 8)), []),
    "after dropout": (lambda m, x: m.bn(F.dropout(m.conv(x), 0.5, m.training)), []),
    "after a dropout module": (lambda m, x: m.bn(m.dropout(m.conv(x))), []),
    "after a drop path": (lambda m, x: m.bn(m.drop_path(m.conv(x))), []),
    "read by a function of one's own": (lambda m, x: (lambda y: m.bn(y) + Twice.apply(y))(m.conv(x)), []),
    "read as numbers": (lambda m, x: (lambda y: m.bn(y) * y.detach().numpy().max())(m.conv(x)), []),
    "read for control flow": (lambda m, x: (lambda y: m.bn(y) if y.mean() > -100 else y)(m.conv(x)), []),
}
"""What a model does, and which BatchNorms can be folded then."""


@pytest.mark.parametrize("pattern", FOLDED)
@pytest.mark.parametrize("targets", [["conv", "conv2"], ["conv2"]], ids=["adapted", "not adapted"])
def test_only_what_a_batchnorm_alone_reads_is_folded(pattern: str, targets: list[str]) -> None:
    run, expected = FOLDED[pattern]
    between = nn.Sequential(nn.Identity(), nn.Sequential(nn.Identity()))
    model = Net(run, dropout=nn.Dropout2d(0.5), drop_path=DropPath(0.5), between=between)
    model = adapted(model, targets=targets).double().train()
    between.append(model.bn)
    assert compare(model, torch.randn(4, 3, 8, 8, dtype=torch.float64)) == expected


def test_the_models_own_hooks_see_and_change_what_they_did() -> None:
    """What reads or changes the convolution's output between it and the BatchNorm keeps them apart."""
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    seen: list[Tensor] = []
    between = {
        "changes the output": lambda m: m.conv.register_forward_hook(lambda _m, _i, y: y * 2),
        "sees the output": lambda m: m.conv.register_forward_hook(lambda _m, _i, y: seen.append(y.detach().clone())),
        "sees the input": lambda m: m.bn.register_forward_pre_hook(lambda _m, i: seen.append(i[0].detach().clone())),
        "changes the input": lambda m: m.bn.register_forward_pre_hook(lambda _m, i: (i[0] * 2,)),
    }
    for hook in between.values():
        model = adapted(Net(lambda m, x: m.bn2(m.conv2(m.bn(m.conv(x)))))).double()
        hook(model)
        assert compare(model, x) == ["bn2"]
        if seen:
            assert all(torch.equal(each, seen[0]) for each in seen)
            seen.clear()
    outside = {
        "before the convolution": lambda m: m.conv.register_forward_pre_hook(lambda _m, i: (i[0] * 2,)),
        "after the BatchNorm": lambda m: m.bn.register_forward_hook(lambda _m, _i, y: seen.append(y)),
    }
    for hook in outside.values():
        model = adapted(Net(lambda m, x: m.bn2(m.conv2(m.bn(m.conv(x)))))).double()
        hook(model)
        assert compare(model, x) == ["bn", "bn2"]


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], int, bool]] = {
    "1d": (lambda: nn.Conv1d(4, 6, 3), lambda: nn.BatchNorm1d(6), 1, True),
    "3d": (lambda: nn.Conv3d(4, 6, 3), lambda: nn.BatchNorm3d(6), 3, True),
    "no bias": (lambda: nn.Conv2d(4, 6, 3, bias=False), lambda: nn.BatchNorm2d(6), 2, True),
    "not affine": (lambda: nn.Conv2d(4, 6, 3), lambda: nn.BatchNorm2d(6, affine=False), 2, True),
    "not affine, no bias": (lambda: nn.Conv2d(4, 6, 1, bias=False), lambda: nn.BatchNorm2d(6, affine=False), 2, True),
    "large eps": (lambda: nn.Conv2d(4, 6, 3), lambda: nn.BatchNorm2d(6, eps=0.7), 2, True),
    "cumulative average": (lambda: nn.Conv2d(4, 6, 3), lambda: nn.BatchNorm2d(6, momentum=None), 2, True),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), lambda: nn.BatchNorm2d(6), 2, True),
    "depthwise": (lambda: nn.Conv2d(4, 8, 5, groups=4, padding=2), lambda: nn.BatchNorm2d(8), 2, True),
    "reflected": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), lambda: nn.BatchNorm2d(6), 2, True),
    "same": (lambda: nn.Conv2d(4, 6, (4, 3), padding="same"), lambda: nn.BatchNorm2d(6), 2, True),
    "dilated": (lambda: nn.Conv2d(4, 6, 3, dilation=2, stride=(2, 1)), lambda: nn.BatchNorm2d(6), 2, True),
    "torchvision's frozen": (lambda: nn.Conv2d(4, 6, 3), lambda: FrozenBatchNorm2d(6), 2, True),
    "synchronised": (lambda: nn.Conv2d(4, 6, 3), lambda: nn.SyncBatchNorm(6), 2, True),
    "timm's with ReLU": (lambda: nn.Conv2d(4, 6, 3), lambda: BatchNormAct2d(6), 2, True),
    "timm's with SiLU": (lambda: nn.Conv2d(4, 6, 3), lambda: BatchNormAct2d(6, act_layer=nn.SiLU), 2, True),
    "timm's with dropout": (
        lambda: nn.Conv2d(4, 6, 3),
        lambda: BatchNormAct2d(6, drop_layer=lambda: nn.Dropout2d(0.5)),
        2,
        True,
    ),
    "no running statistics": (
        lambda: nn.Conv2d(4, 6, 3),
        lambda: nn.BatchNorm2d(6, track_running_stats=False),
        2,
        False,
    ),
    "another normalisation": (lambda: nn.Conv2d(4, 6, 3), lambda: nn.GroupNorm(2, 6), 2, False),
    "instance normalisation": (
        lambda: nn.Conv2d(4, 6, 3),
        lambda: nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
        2,
        False,
    ),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3), lambda: nn.BatchNorm2d(6), 2, False),
    "standardised": (lambda: StdConv2d(4, 6, 3), lambda: nn.BatchNorm2d(6), 2, False),
    "linear": (lambda: nn.Linear(7, 6), lambda: nn.BatchNorm1d(4), 1, False),
    "weight norm": (lambda: weight_norm(nn.Conv2d(4, 6, 3)), lambda: nn.BatchNorm2d(6), 2, False),
    "old weight norm": (lambda: old_weight_norm(nn.Conv2d(4, 6, 3)), lambda: nn.BatchNorm2d(6), 2, False),
    "half of it": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU()), lambda: nn.BatchNorm2d(6), 2, False),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("adapts", [True, False])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_kinds_of_convolutions_and_batchnorm(name: str, adapts: bool) -> None:
    conv, batchnorm, dims, folds = LAYERS[name]
    model = nn.ModuleDict({"layers": nn.Sequential(conv(), batchnorm()), "tail": nn.Linear(3, 3)})
    model.forward = lambda x: model["layers"](x)
    adapted(model, targets="all" if adapts else ["tail"]).double().train()
    x = torch.randn(3, 4, *[7] * dims, dtype=torch.float64)
    assert compare(model, x) == (["layers.1"] if folds else [])


def test_batchnorm_that_is_not_frozen_is_not_folded() -> None:
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    for config in ({"batchnorm": "train"}, {"batchnorm": "recalibrate"}, {"unfreeze": ["bn"]}, {"unfreeze": ["conv"]}):
        model = adapted(Net(lambda m, x: m.bn2(m.conv2(m.bn(m.conv(x))))), targets=["conv2"], **config).double()
        assert vl.fold_batchnorm(model, x) == ([] if "batchnorm" in config else ["bn2"])
        model.train()
        before = model.bn.running_mean.clone()
        model(x).square().sum().backward()
        assert torch.equal(model.bn.running_mean, before) == (config.get("unfreeze") == ["conv"])
        assert (model.bn.weight.grad is None) == (config not in ({"batchnorm": "train"}, {"unfreeze": ["bn"]}))
    model = Net(lambda m, x: m.bn(m.conv(x))).double().eval()
    assert vl.fold_batchnorm(model, x) == [], "without adapters nothing is frozen"


def test_a_batchnorm_that_trains_by_hand_after_the_fold_gets_its_gradient() -> None:
    model = adapted(Net(lambda m, x: m.bn2(m.conv2(m.bn(m.conv(x))))), targets=["conv2"]).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    vl.fold_batchnorm(model, x)
    for batchnorm in (model.bn, model.bn2):
        batchnorm.requires_grad_(True)
    found = gradients(model, x)
    vl.unfold_batchnorm(model)
    agree(found, gradients(model, x), 1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_few_bits_are_not_folded(dtype: torch.dtype) -> None:
    model = adapted(Net(lambda m, x: m.bn2(m.conv2(m.bn(m.conv(x)))))).to(dtype)
    x = torch.randn(2, 3, 8, 8, dtype=dtype)
    assert vl.fold_batchnorm(model, x) == []
    model.conv2.to(torch.float32)
    model.bn2.to(torch.float32)
    model.run = lambda m, x: m.bn2(m.conv2(m.bn(m.conv(x)).float()))
    assert vl.fold_batchnorm(model, x) == ["bn2"]


@pytest.mark.parametrize("targets", [["conv", "conv2"], ["conv2"]])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_folded_model_may_change_its_precision(targets: list[str], autocast: bool) -> None:
    model = adapted(Net(lambda m, x: m.bn2(m.conv2(m.bn(m.conv(x))))), targets=targets)
    x = torch.randn(4, 3, 8, 8)
    expected = model(x)
    assert vl.fold_batchnorm(model, x) == ["bn", "bn2"]
    torch.testing.assert_close(model.double()(x.double()).float(), expected, rtol=1e-4, atol=1e-4)
    for grad in (False, True):
        with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = model.bfloat16()(x if autocast else x.bfloat16())
        assert output.dtype == torch.bfloat16
        assert float((output.float() - expected).detach().norm() / expected.detach().norm()) < 0.02


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("targets", [["conv", "conv2"], ["conv"], ["conv2"]])
@pytest.mark.parametrize("route", ["auto", "reference"])
def test_a_folded_model_under_autocast(dtype: torch.dtype, targets: list[str], route: str) -> None:
    model = adapted(Net(lambda m, x: m.bn2(m.conv2(m.bn(m.conv(x)).relu()))), targets=targets)
    x = torch.randn(4, 3, 8, 8)
    exact = gradients(vl.set_route(model, route), x)
    types = []
    for folded in (False, True):
        if folded:
            assert vl.fold_batchnorm(model, x) == ["bn", "bn2"]
        for grad in (False, True):
            with torch.autocast("cpu", dtype), torch.set_grad_enabled(grad):
                types.append(model(x).dtype)
        with torch.autocast("cpu", dtype):
            found = gradients(model, x)
        for name, value in found.items():
            cosine = F.cosine_similarity(value.double().flatten(), exact[name].double().flatten(), dim=0)
            assert cosine > 0.99, name
    assert types == [dtype] * 4
