"""Frozen BatchNorm folded into the convolutions before it: the same numbers, and the model can always go back."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import perturb
from helpers.comparing import agree, gradients, trained
from helpers.copies import COPIES
from helpers.folded_models import adapted, lively
from visionlora.adapters.folded import folded_into


class Chain(nn.Module):
    """Convolutions with BatchNorm of two kinds, an activation that keeps less, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6)
        self.act = nn.SiLU(inplace=True)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, groups=6, bias=False), BatchNormAct2d(6, act_layer=nn.ReLU6)
        self.conv3, self.bn3 = nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        return self.head(self.bn3(self.conv3(x)).relu().mean((2, 3)))


BNS = ["bn1", "bn2", "bn3"]


@pytest.fixture
def base() -> nn.Module:
    return lively(Chain()).eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 3, 13, 13)


@pytest.fixture
def model(base: nn.Module) -> nn.Module:
    """Not yet folded; conv3 has no adapter."""
    model = copy.deepcopy(base)
    vl.attach(model, vl.LoRAConfig(rank=2, targets=["conv1", "conv2"], unfreeze=["head"]))
    perturb(model, 0.3)
    return model


def run(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


def classes(model: nn.Module) -> list[type]:
    return [type(module) for module in model.modules()]


def attributes(model: nn.Module) -> list[list[str]]:
    return [sorted(vars(module)) for module in model.modules()]


def folded_in(model: nn.Module) -> list[str]:
    names = {module: name for name, module in model.named_modules()}
    return [names[folded_into(module)] for module in model.modules() if folded_into(module) is not None]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(value, other[key]) for key, value in one.items())


def state(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(dict(model.state_dict()))


def near(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def changes(norm: nn.Module, model: nn.Module, x: Tensor) -> bool:
    """Whether a forward's values are others behind the BatchNorm than before it."""
    seen: list[bool] = []
    with norm.register_forward_hook(lambda _norm, inputs, output: seen.append(not torch.equal(inputs[0], output))):
        run(model, x)
    return any(seen)


def test_unfolding_brings_back_classes_and_bits(model: nn.Module, x: Tensor) -> None:
    expected, exact, before = run(model, x), gradients(model, x), (classes(model), attributes(model), state(model))
    for _ in range(2):
        assert vl.fold_batchnorm(model, x) == vl.fold_batchnorm(model, x) == BNS == folded_in(model)
        assert near(run(model, x), expected) and not changes(model.bn1, model, x)
        assert same(state(model), before[2])
        vl.unfold_batchnorm(model)
        assert folded_in(model) == [] and (classes(model), attributes(model)) == before[:2]
        assert torch.equal(run(model, x), expected) and changes(model.bn1, model, x)
        assert all(torch.equal(value, exact[name]) for name, value in gradients(model, x).items())
    assert vl.unfold_batchnorm(model) == []


def test_folding_is_noticed_by_nobody_who_looks_at_names(model: nn.Module, x: Tensor) -> None:
    def names() -> list[tuple[str, int]]:
        named = (*model.named_modules(), *model.named_parameters(), *model.named_buffers())
        return [(name, id(each)) for name, each in named]

    before, shown = names(), str(model)
    vl.fold_batchnorm(model, x)
    assert names() == before and str(model) == shown
    assert isinstance(model.bn1, nn.BatchNorm2d) and isinstance(model.bn2, BatchNormAct2d)


@pytest.mark.parametrize("attached_in", [True, False])
@pytest.mark.parametrize("folded_in_training", [True, False])
@pytest.mark.parametrize("leave", [vl.detach, vl.merge])
def test_training_modes_are_left_as_they_were(
    base: nn.Module, x: Tensor, attached_in: bool, folded_in_training: bool, leave: Callable[[nn.Module], nn.Module]
) -> None:
    base.train(attached_in)
    vl.attach(base, vl.LoRAConfig(rank=2))
    base.train(folded_in_training)
    base.act.train(not folded_in_training)
    modes = {name: module.training for name, module in base.named_modules()}
    vl.fold_batchnorm(base, x)
    assert {name: module.training for name, module in base.named_modules()} == modes
    base.train()
    assert not any(base.get_submodule(name).training for name in BNS) and base.conv1.training
    leave(base)
    assert all(module.training for module in base.modules())


def test_a_batchnorm_that_was_in_eval_mode_by_itself_is_left_so(base: nn.Module, x: Tensor) -> None:
    base.train()
    base.bn1.eval()
    vl.attach(base, vl.LoRAConfig(rank=2))
    vl.fold_batchnorm(base, x)
    vl.detach(base)
    assert not base.bn1.training and base.bn2.training and base.bn3.training


def test_a_folded_batchnorm_stays_frozen_in_training(model: nn.Module, x: Tensor) -> None:
    before, expected = state(model), model(x)
    vl.fold_batchnorm(model, x)
    torch.testing.assert_close(model.train()(x), expected, rtol=1e-4, atol=1e-5)
    assert same(state(model), before)


def test_disabled_is_exactly_the_base_while_folded(base: nn.Module, model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        model.head.weight.add_(1)
    vl.fold_batchnorm(model, x)
    expected, mine = run(base.requires_grad_(False), x), run(model, x)
    kinds = classes(model)
    with vl.disabled(model):
        assert torch.equal(run(model, x), expected) and folded_in(model) == []
    assert folded_in(model) == BNS and classes(model) == kinds and torch.equal(run(model, x), mine)
    with pytest.raises(ZeroDivisionError), vl.disabled(model):
        raise ZeroDivisionError
    assert folded_in(model) == BNS and torch.equal(run(model, x), mine)
    with vl.disabled(model), vl.disabled(model):
        assert torch.equal(run(model, x), expected)
    assert torch.equal(run(model, x), mine)


def test_folding_inside_disabled_does_no_harm(base: nn.Module, model: nn.Module, x: Tensor) -> None:
    for folded_before in (False, True):
        if folded_before:
            vl.fold_batchnorm(model, x)
        with vl.disabled(model):
            vl.fold_batchnorm(model, x)
            torch.testing.assert_close(run(model, x), run(base, x), rtol=1e-4, atol=1e-5)
        assert folded_in(model) == BNS
        vl.unfold_batchnorm(model)
    vl.detach(model)
    assert classes(model) == classes(base) and attributes(model) == attributes(base)
    assert torch.equal(run(model, x), run(base, x))


@pytest.mark.parametrize("act", [vl.merge, vl.merged])
def test_merging_a_folded_model_gives_what_merging_it_unfolded_does(
    base: nn.Module, model: nn.Module, x: Tensor, act: Callable[[nn.Module], nn.Module]
) -> None:
    expected = vl.merged(model)
    vl.fold_batchnorm(model, x)
    plain = act(model)
    assert classes(plain) == classes(base) and attributes(plain) == attributes(base)
    assert same(state(plain), state(expected)) and torch.equal(run(plain, x), run(expected, x))
    base.load_state_dict(plain.state_dict())
    assert folded_in(model) == (BNS if act is vl.merged else [])


@pytest.mark.parametrize("copied", COPIES)
def test_copies_are_folded_and_on_their_own(
    base: nn.Module, model: nn.Module, x: Tensor, copied: Callable[[nn.Module], nn.Module]
) -> None:
    vl.fold_batchnorm(model, x)
    expected = run(model, x)
    twin = copied(model)
    assert folded_in(twin) == BNS and torch.equal(run(twin, x), expected)
    assert all(folded_into(twin.get_submodule(f"conv{i}")) is twin.get_submodule(f"bn{i}") for i in (1, 2, 3))
    with torch.no_grad():
        twin.bn1.running_mean.add_(1)
        twin.bn3.weight.mul_(2)
    assert torch.equal(run(model, x), expected) and not torch.allclose(run(twin, x), expected, rtol=1e-2)
    vl.detach(twin)
    assert folded_in(twin) == [] and classes(twin) == classes(base) and folded_in(model) == BNS
    assert torch.equal(run(model, x), expected)


def test_a_state_dict_loads_into_a_folded_model_and_takes_effect(model: nn.Module, x: Tensor) -> None:
    other = copy.deepcopy(model)
    lively(other)
    perturb(other, 0.3)
    with torch.no_grad():
        for conv in (other.conv1, other.conv2, other.conv3):
            conv._parameters["weight"].normal_()
    vl.fold_batchnorm(model, x)
    model.load_state_dict(other.state_dict(), strict=True)
    assert near(run(model, x), run(other, x))
    other.load_state_dict(model.state_dict(), strict=True)


def test_statistics_and_gains_that_change_later_take_effect(model: nn.Module, x: Tensor) -> None:
    vl.fold_batchnorm(model, x)
    before = run(model, x)
    lively(model)
    after = run(model, x)
    assert not torch.allclose(before, after, rtol=1e-2)
    vl.unfold_batchnorm(model)
    assert near(after, run(model, x))


def test_a_folded_model_saves_and_loads(base: nn.Module, model: nn.Module, x: Tensor, tmp_path: Path) -> None:
    vl.save_adapter(model, tmp_path / "plain.safetensors")
    vl.fold_batchnorm(model, x)
    vl.save_adapter(model, tmp_path / "folded.safetensors")
    plain, folded = (copy.deepcopy(base) for _ in range(2))
    vl.load_adapter(plain, tmp_path / "plain.safetensors")
    vl.load_adapter(folded, tmp_path / "folded.safetensors")
    assert same(state(plain), state(folded)) and torch.equal(run(folded, x), run(plain, x))
    vl.load_adapter(model, tmp_path / "folded.safetensors", name="again")
    assert folded_in(model) == [] and vl.adapter_names(model) == ["default", "again"]
    assert torch.equal(run(model, x), run(plain, x))


def test_what_changes_the_adapters_unfolds_first(base: nn.Module, model: nn.Module, x: Tensor) -> None:
    alone = run(model, x)
    vl.fold_batchnorm(model, x)
    vl.attach(model, vl.LoRAConfig(rank=3, targets=["conv2", "conv3"]), name="second")
    perturb(model, 0.3)
    assert folded_in(model) == []
    both = {}
    for names in (["default"], ["second"], ["default", "second"], []):
        vl.activate(model, names)
        assert folded_in(model) == []
        expected, exact = run(model, x), gradients(model, x) if names else None
        assert vl.fold_batchnorm(model, x) == BNS
        assert near(run(model, x), expected)
        if exact:
            agree(gradients(model, x), exact, 1e-4)
        both[tuple(names)] = expected
    assert torch.equal(both[()], run(base.requires_grad_(False), x))
    assert not torch.equal(both["default",], alone), "perturbed since"
    vl.activate(model, "default")
    vl.fold_batchnorm(model, x)
    vl.detach(model, "second")
    assert folded_in(model) == [] and torch.equal(run(model, x), both["default",])
    vl.fold_batchnorm(model, x)
    vl.detach(model)
    assert classes(model) == classes(base) and attributes(model) == attributes(base)
    assert torch.equal(run(model, x), run(base, x))


def test_an_adapter_may_be_verified_while_folded(model: nn.Module, x: Tensor) -> None:
    expected = vl.verify(model, x)
    vl.fold_batchnorm(model, x)
    assert str(vl.verify(model, x)) == str(expected) and folded_in(model) == BNS


@pytest.mark.parametrize("route", ["auto", "factored", "dense", "reference"])
def test_every_route_agrees_while_folded(model: nn.Module, x: Tensor, route: str) -> None:
    model, x = model.double(), x.double()
    exact = gradients(model, x)
    vl.fold_batchnorm(model, x)
    agree(gradients(vl.set_route(model, route), x), exact, 1e-9)


def test_a_folded_model_trains_as_the_unfolded_one_does(model: nn.Module, x: Tensor) -> None:
    other = copy.deepcopy(model.double())
    vl.fold_batchnorm(model, x.double())
    for each in (model.train(), other.train()):
        optimizer = torch.optim.Adam(trained(each).values(), lr=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            (each(x.double()) - 1).square().sum().backward()
            optimizer.step()
    for name, value in state(other).items():
        torch.testing.assert_close(state(model)[name], value, rtol=1e-6, atol=1e-9)


class Refuses(Chain):
    def forward(self, x: Tensor) -> Tensor:
        super().forward(x)
        raise ValueError("no such image")


def test_a_model_that_fails_on_the_example_is_left_as_it_was(x: Tensor) -> None:
    model = Refuses().train()
    model.bn2.eval()
    vl.attach(model, vl.LoRAConfig(rank=2))
    modes = [module.training for module in model.modules()]
    before = classes(model), attributes(model), state(model)
    with pytest.raises(ValueError, match="no such image"):
        vl.fold_batchnorm(model, x)
    assert (classes(model), attributes(model)) == before[:2] and same(state(model), before[2])
    assert [module.training for module in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.overrides._get_current_function_mode_stack() == [] and torch.is_grad_enabled()


def test_no_hook_is_left_behind(model: nn.Module, x: Tensor) -> None:
    vl.fold_batchnorm(model, x)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_model_without_batchnorm_is_left_alone() -> None:
    model = adapted(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)))
    before = classes(model), attributes(model)
    assert vl.fold_batchnorm(model, torch.randn(1, 3, 9, 9)) == []
    assert vl.unfold_batchnorm(model) == [] and (classes(model), attributes(model)) == before


def test_the_example_may_be_smaller_and_of_another_batch(model: nn.Module, x: Tensor) -> None:
    expected = run(model, x)
    assert vl.fold_batchnorm(model, x[:1, :, :9, :9]) == BNS
    assert near(run(model, x), expected)


def test_folding_does_not_touch_random_numbers_and_gradients(model: nn.Module, x: Tensor) -> None:
    model(x).sum().backward()
    before = {name: p.grad.clone() for name, p in trained(model).items()}
    torch.manual_seed(5)
    vl.fold_batchnorm(model, x)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(p.grad, before[name]) for name, p in trained(model).items())


def test_where_folding_would_change_the_numbers_it_is_left(model: nn.Module, x: Tensor) -> None:
    """A negative variance gives NaN either way, and NaN is no agreement."""
    with torch.no_grad():
        model.bn2.running_var[0] = -1
    assert vl.fold_batchnorm(model, x) == ["bn1"]


def test_a_very_small_variance_still_agrees(model: nn.Module, x: Tensor) -> None:
    """As dead channels of pretrained networks have: 1e-12, with eps 1e-5."""
    with torch.no_grad():
        model.bn1.running_var[:3] = 1e-12
        model.bn3.running_var.fill_(1e-8)
        model.bn3.weight[2] = 0
    expected = gradients(model, x)
    assert vl.fold_batchnorm(model, x) == BNS
    agree(gradients(model, x), expected, 1e-4)


def test_a_part_of_a_model_may_be_folded_on_its_own(model: nn.Module, x: Tensor) -> None:
    whole = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), model)
    expected = run(model, x)
    assert vl.fold_batchnorm(model, x) == BNS
    assert near(run(model, x), expected)
    assert folded_in(whole) == [f"2.{name}" for name in BNS]
    assert len(vl.unfold_batchnorm(whole)) == 3 and torch.equal(run(model, x), expected)
