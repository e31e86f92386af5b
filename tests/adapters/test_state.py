"""Unfrozen modules and BatchNorm state belong to the adapter; the base keeps its own."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from timm.models import levit
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import perturb, wake
from helpers.copies import COPIES
from visionlora.adapters.config import BATCHNORM_MODES


class Net(nn.Module):
    """Two convolutions with BatchNorm, and a head that has one too."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.head = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return self.head(x.mean((2, 3)))


def images(seed: int = 1) -> Tensor:
    return 2 + 3 * torch.randn(6, 3, 15, 15, generator=torch.Generator().manual_seed(seed))


def run(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(images())


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)


def train(model: nn.Module, steps: int = 3, optimizer: torch.optim.Optimizer | None = None, seed: int = 2) -> nn.Module:
    optimizer = optimizer or optimizer_of(model)
    model.train()
    for step in range(steps):
        optimizer.zero_grad()
        model(images(seed + step)).square().sum().backward()
        optimizer.step()
    return model


def config(batchnorm: str = "frozen", rank: int = 2) -> vl.LoRAConfig:
    return vl.LoRAConfig(rank=rank, unfreeze=["head"], batchnorm=batchnorm)


def state(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(value, other[key]) for key, value in one.items())


def base_state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in state(model).items() if ".lora_" not in key}


@pytest.fixture
def base() -> nn.Module:
    return train(Net(), steps=2)  # running statistics away from 0 and 1


@pytest.mark.parametrize("mode", BATCHNORM_MODES)
def test_disabled_is_exactly_the_base_after_training(base: nn.Module, mode: str) -> None:
    model = copy.deepcopy(base)
    vl.attach(model, config(mode))
    train(model)
    trained = state(model)
    assert not torch.allclose(run(model), run(base), rtol=1e-2)
    with vl.disabled(model):
        assert torch.equal(run(model), run(base))
        assert same(base_state(model), state(base))
    assert same(state(model), trained)
    vl.detach(model)
    assert torch.equal(run(model), run(base)) and same(state(model), state(base))


MOVES = {"frozen": set(), "recalibrate": {"running"}, "train": {"running", "affine"}}


@pytest.mark.parametrize("mode", BATCHNORM_MODES)
def test_what_training_moves_in_batchnorm(base: nn.Module, mode: str) -> None:
    model = copy.deepcopy(base)
    vl.attach(model, config(mode))
    train(model)
    for bn, before in ((model.bn1, base.bn1), (model.bn2, base.bn2)):
        assert torch.equal(bn.running_mean, before.running_mean) == ("running" not in MOVES[mode])
        assert torch.equal(bn.running_var, before.running_var) == ("running" not in MOVES[mode])
        assert torch.equal(bn.weight, before.weight) == ("affine" not in MOVES[mode])
        assert bn.weight.requires_grad == bn.bias.requires_grad == ("affine" in MOVES[mode])
    assert not torch.equal(model.head[1].running_mean, base.head[1].running_mean)
    assert not torch.equal(model.head[1].weight, base.head[1].weight)


@pytest.mark.parametrize("mode", BATCHNORM_MODES)
def test_a_teacher_forward_in_training_mode_leaves_the_base_as_it_is(base: nn.Module, mode: str) -> None:
    model = copy.deepcopy(base)
    vl.attach(model, config(mode))
    train(model)
    expected, modes = run(base), {name: m.training for name, m in model.train().named_modules()}
    with vl.disabled(model), torch.no_grad():
        assert torch.equal(model(images()), expected)
    assert {name: m.training for name, m in model.named_modules()} == modes
    vl.detach(model)
    assert same(state(model), state(base))


@pytest.mark.parametrize("mode", BATCHNORM_MODES)
def test_an_optimizer_is_not_disturbed_by_disabled(base: nn.Module, mode: str) -> None:
    vl.attach(base, config(mode))
    model, twin = copy.deepcopy(base), copy.deepcopy(base)
    optimizers = {each: optimizer_of(each) for each in (model, twin)}
    for step in range(3):
        for each in (model, twin):
            train(each, 1, optimizers[each], seed=step)
        with vl.disabled(model):
            run(model)
    assert same(state(model), state(twin))
    assert not same(state(model), state(base))


def test_a_graph_from_before_disabled_has_the_right_gradients(base: nn.Module) -> None:
    vl.attach(base, config("train"))
    perturb(base)
    model, twin = copy.deepcopy(base).train(), copy.deepcopy(base).train()
    losses = [each(images()).square().sum() for each in (model, twin)]
    with vl.disabled(model):
        run(model)
    model.train()
    for loss in losses:
        loss.backward()
    gradients = [{name: p.grad for name, p in each.named_parameters() if p.grad is not None} for each in (model, twin)]
    assert "head.0.weight" in gradients[0] and "conv1.adapters.default.weight.lora_B" in gradients[0]
    assert same(*gradients)


def test_disabled_nests_and_survives_an_exception(base: nn.Module) -> None:
    model = copy.deepcopy(base)
    vl.attach(model, config("train"))
    train(model)
    expected = run(model)
    with pytest.raises(KeyError), vl.disabled(model):
        with vl.disabled(model):
            pass
        assert torch.equal(run(model), run(base))
        raise KeyError
    assert torch.equal(run(model), expected)


def test_frozen_batchnorm_stays_in_eval_mode(base: nn.Module) -> None:
    base.bn1.extra = nn.Dropout()  # BatchNorm may have children, as timm's BatchNormAct2d
    vl.attach(base, config())
    for switch in (base.train, base.bn1.train, nn.Sequential(base.bn2).train):
        switch()
        assert not (base.bn1.training or base.bn2.training or base.bn1.extra.training)
    assert base.training and base.conv1.training and base.head[1].training
    before = base_state(base)
    base.train()(images())
    changed = {key for key, value in base_state(base).items() if not torch.equal(value, before[key])}
    assert changed == {"head.1.running_mean", "head.1.running_var", "head.1.num_batches_tracked"}


@pytest.mark.parametrize("leave", [vl.detach, vl.merge])
@pytest.mark.parametrize("attached_in", ["train", "eval"])
@pytest.mark.parametrize("left_in", ["train", "eval"])
def test_batchnorm_gets_back_its_class_and_follows_the_model(
    base: nn.Module, leave: Callable[[nn.Module], nn.Module], attached_in: str, left_in: str
) -> None:
    getattr(base, attached_in)()
    vl.attach(base, config())
    assert type(base.bn1) is not nn.BatchNorm2d
    getattr(base, left_in)()
    leave(base)
    assert {type(m) for m in base.modules()} == {type(m) for m in Net().modules()}
    assert all(module.training == (left_in == "train") for module in base.modules())
    base.train()
    assert base.bn1.training


@pytest.mark.parametrize("leave", [vl.detach, vl.merge])
def test_batchnorm_that_was_in_eval_mode_by_itself_is_left_so(
    base: nn.Module, leave: Callable[[nn.Module], nn.Module]
) -> None:
    base.train()
    base.bn1.eval()
    vl.attach(base, config())
    leave(base)
    assert not base.bn1.training and base.bn2.training


def two_adapters(base: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    """A model with two trained adapters, each with its own head, and what each trained model answered."""
    model, expected = copy.deepcopy(base), {}
    for seed, (name, mode) in enumerate((("day", "train"), ("night", "recalibrate"))):
        vl.attach(model, config(mode), name=name)
        train(model, seed=10 * seed)
        expected[name] = run(model)
    assert not torch.allclose(expected["day"], expected["night"], rtol=1e-2)
    return model, expected


def test_a_second_adapter_starts_from_the_base(base: nn.Module) -> None:
    model = copy.deepcopy(base)
    vl.attach(model, config("train"), name="day")
    train(model)
    vl.attach(model, config("train"), name="night")
    assert torch.equal(run(model), run(base))


def test_activate_switches_heads_and_batchnorm(base: nn.Module) -> None:
    model, expected = two_adapters(base)
    for name in ("day", "night", "night", "day"):
        vl.activate(model, name)
        assert torch.equal(run(model), expected[name])
        assert model.head[0].weight.requires_grad
        factors = {key: p.requires_grad for key, p in model.named_parameters() if ".lora_" in key}
        assert all(flag == (f".{name}." in key) for key, flag in factors.items())
        assert model.bn1.weight.requires_grad == (name == "day")
    vl.activate(model, [])
    assert torch.equal(run(model.train()), run(base))
    assert not any(p.requires_grad for p in model.parameters())
    model.train()(images())
    vl.detach(model)
    assert same(state(model), state(base))


def test_switching_keeps_the_state_of_each_adapter(base: nn.Module) -> None:
    """Train one, the other, the one again: as if the other had not been there."""
    alone, both = copy.deepcopy(base), copy.deepcopy(base)
    vl.attach(both, config("train"), name="night")
    train(both, seed=50)
    for model in (alone, both):
        torch.manual_seed(5)
        vl.attach(model, config("train"), name="day")
        train(model)
    vl.activate(both, "night")
    train(both, seed=60)
    vl.activate(both, "day")
    assert torch.equal(run(train(both)), run(train(alone)))


def test_detaching_one_adapter_keeps_the_other(base: nn.Module) -> None:
    model, expected = two_adapters(base)
    vl.detach(model, "night")
    assert vl.adapter_names(model) == ["day"]
    assert torch.equal(run(model), run(base)), "the active adapter is gone, so the base shows"
    assert not model.bn1.training and not any(p.requires_grad for p in model.parameters())
    vl.activate(model, "day")
    assert torch.equal(run(model), expected["day"])
    vl.detach(model, "day")
    assert same(state(model), state(base)) and all(p.requires_grad for p in model.parameters())


def test_two_adapters_with_the_same_head_cannot_be_active_together(base: nn.Module) -> None:
    model, expected = two_adapters(base)
    with pytest.raises(vl.InputError, match=r"adapters \['day', 'night'\] both have their own"):
        vl.activate(model, ["day", "night"])
    assert torch.equal(run(model), expected["night"])


def test_deltas_of_two_adapters_add_up() -> None:
    model = Net().double()
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if p.ndim > 1}
    for name, rank in (("a", 2), ("b", 3)):
        vl.attach(model, vl.LoRAConfig(rank=rank), name=name)
        perturb(model)
    deltas = {
        (path, name): model.get_submodule(path).adapters[name]["weight"].whole_update(weight)
        for path, weight in ((key.removesuffix(".weight"), value) for key, value in frozen.items())
        for name in ("a", "b")
    }
    assert all(delta.abs().max() > 0 for delta in deltas.values())
    for active in (["a", "b"], ["b", "a"], ["a"], ["b"], ["a", "a"]):
        vl.activate(model, active)
        for key, weight in frozen.items():
            path = key.removesuffix(".weight")
            expected = weight
            for name in dict.fromkeys(active):
                expected = expected + deltas[path, name]
            # No bit for bit: the factors are stacked, and a processor adds their products in its own order.
            torch.testing.assert_close(model.get_submodule(path).weight, expected, rtol=0, atol=1e-12)


def test_only_the_factors_and_the_head_train(base: nn.Module) -> None:
    vl.attach(base, config())
    trains = {name for name, p in base.named_parameters() if p.requires_grad}
    assert trains == {name for name, _ in base.named_parameters() if ".lora_" in name or name.startswith("head.")}


@pytest.mark.parametrize("leave", [vl.detach, vl.merge])
def test_requires_grad_comes_back_as_it_was(base: nn.Module, leave: Callable[[nn.Module], nn.Module]) -> None:
    base.conv1.requires_grad_(False)
    base.bn2.bias.requires_grad_(False)
    base.head[3].bias.requires_grad_(False)
    flags = {name: p.requires_grad for name, p in base.named_parameters()}
    vl.attach(base, config("train"), name="one")
    vl.attach(base, config(), name="two")
    assert base.head[3].bias.requires_grad
    leave(base)
    assert {name: p.requires_grad for name, p in base.named_parameters()} == flags


@pytest.mark.parametrize("order", [[0, 1], [1, 0]], ids=["whole model first", "part first"])
def test_requires_grad_comes_back_where_a_model_and_a_part_of_it_have_adapters(
    base: nn.Module, order: list[int]
) -> None:
    base.bn2.bias.requires_grad_(False)
    model = nn.ModuleDict({"backbone": base, "boxes": nn.Linear(8, 4)})
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    for index in order:
        vl.attach((model, base)[index], vl.LoRAConfig(rank=2), name=f"adapter{index}")
    vl.detach(model)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags


def test_an_unfrozen_module_trains_instead_of_being_adapted(base: nn.Module) -> None:
    model = copy.deepcopy(base)
    report = vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=["conv2", "bn2"]))
    assert [layer.path for layer in report.adapted] == ["conv1", "head.0", "head.3"]
    train(model)
    assert type(model.conv2) is nn.Conv2d and not torch.equal(model.conv2.weight, base.conv2.weight)
    assert not torch.equal(model.bn2.running_mean, base.bn2.running_mean)
    assert torch.equal(model.bn1.running_mean, base.bn1.running_mean)
    with vl.disabled(model):
        assert torch.equal(run(model), run(base))


def test_an_adapter_may_unfreeze_what_another_adapts(base: nn.Module) -> None:
    model = copy.deepcopy(base)
    vl.attach(model, vl.LoRAConfig(rank=2, targets="conv"), name="low")
    perturb(model)
    delta = (model.conv1.weight - base.conv1.weight).detach()
    low = run(model)
    vl.attach(model, vl.LoRAConfig(targets=[], unfreeze=["conv1"]), name="full")
    train(model)
    full = model.conv1.weight.detach().clone()
    assert not torch.equal(full, base.conv1.weight)
    vl.activate(model, ["low", "full"])
    torch.testing.assert_close(model.conv1.weight, full + delta)
    vl.activate(model, "low")
    assert torch.equal(run(model), low)


def test_the_whole_model_may_be_unfrozen(base: nn.Module) -> None:
    model = copy.deepcopy(base)
    vl.attach(model, vl.LoRAConfig(targets=[], unfreeze=["*"]))
    train(model)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), base.parameters(), strict=True))
    with vl.disabled(model):
        assert same(state(model), state(base))


@pytest.mark.parametrize("copied", COPIES)
def test_copies_carry_heads_and_batchnorm_of_every_adapter(
    base: nn.Module, copied: Callable[[nn.Module], nn.Module]
) -> None:
    model, expected = two_adapters(base)
    twin = copied(model)
    vl.activate(twin, "day")
    assert torch.equal(run(twin), expected["day"])
    train(twin)
    assert not twin.train().bn1.weight.isnan().any() and twin.bn1.training
    with vl.disabled(twin):
        assert torch.equal(run(twin), run(base))
    assert torch.equal(run(model), expected["night"]), "the original does not notice"
    vl.detach(twin)
    assert same(state(twin), state(base)) and {type(m) for m in twin.modules()} == {type(m) for m in base.modules()}
    assert torch.equal(run(model), expected["night"])


@pytest.mark.parametrize("mode", BATCHNORM_MODES)
def test_merge_keeps_the_active_head_and_batchnorm(base: nn.Module, mode: str) -> None:
    vl.attach(base, config(mode))
    train(base)
    expected, before = run(base), state(base)
    plain = vl.merged(base)
    assert torch.equal(run(plain), expected)
    assert list(plain.state_dict()) == list(Net().state_dict())
    assert same(state(base), before) and torch.equal(run(base), expected) and vl.adapter_names(base) == ["default"]
    fresh = Net().eval()
    fresh.load_state_dict(plain.state_dict())
    assert torch.equal(run(fresh), expected)
    vl.merge(base)
    assert same(state(base), state(plain))
    with vl.disabled(base):
        assert torch.equal(run(base), expected), "nothing is left to disable"


def test_an_optimizer_of_the_base_outlives_attach_and_merge(base: nn.Module) -> None:
    optimizer = torch.optim.SGD(base.parameters(), lr=0.01)
    vl.attach(base, config("train"))
    train(base)
    vl.merge(base)
    before = state(base)
    train(base, 1, optimizer)
    assert not any(torch.equal(p, before[name]) for name, p in base.named_parameters() if name.endswith("weight"))


def test_merging_with_an_inactive_adapter_leaves_that_out(base: nn.Module) -> None:
    model, expected = two_adapters(base)
    vl.activate(model, "day")
    vl.merge(model)
    assert torch.equal(run(model), expected["day"]) and not vl.adapter_names(model)


def test_an_optimizer_of_the_head_outlives_the_merge(base: nn.Module) -> None:
    vl.attach(base, config())
    optimizer = torch.optim.SGD([p for p in base.parameters() if p.requires_grad], lr=0.01)
    train(base, 2, optimizer)
    vl.merge(base)
    before = state(base)
    train(base, 1, optimizer)
    changed = {key for key, p in base.named_parameters() if not torch.equal(p, before[key])}
    assert changed == {name for name, _ in base.named_parameters() if name.startswith("head.")}


@pytest.mark.parametrize("mode", BATCHNORM_MODES)
def test_a_model_that_changes_precision_still_has_its_base(base: nn.Module, mode: str, tmp_path: Path) -> None:
    model = copy.deepcopy(base)
    vl.attach(model, config(mode))
    train(model)
    model, base = model.double(), base.double()

    def run64(module: nn.Module) -> Tensor:
        with torch.no_grad():
            return module.eval()(images().double())

    trained = run64(model)
    with vl.disabled(model):
        assert torch.equal(run64(model), run64(base))
        assert all(p.dtype == torch.float64 for p in model.parameters())
    assert torch.equal(run64(model), trained)
    vl.save_adapter(model, tmp_path / "a.safetensors")
    assert ("bn1.weight" in load_file(tmp_path / "a.safetensors")) == (mode == "train")
    vl.load_adapter(base, tmp_path / "a.safetensors")
    assert torch.equal(run64(base), trained)


def test_a_cache_made_from_an_unfrozen_parameter_does_not_outlive_it() -> None:
    """LeViT keeps ``attention_biases[:, idxs]`` between eval forwards."""
    base = wake(nn.Sequential(levit.Attention(8, 4, 2, 2.0, (2, 3)), nn.Linear(8, 3))).eval()
    model, x = copy.deepcopy(base), torch.randn(2, 6, 8)
    with torch.no_grad():
        vl.attach(model, vl.LoRAConfig(targets=[], unfreeze=["0"]))
        model[0].attention_biases.normal_(std=5)
        changed = model(x)
        assert model[0].attention_bias_cache and not torch.allclose(changed, base(x), rtol=1e-3)
        with vl.disabled(model):
            assert torch.equal(model(x), base(x))
        assert torch.equal(model(x), changed)
