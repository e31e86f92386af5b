"""Several adapters of a model: with weights, one after the other without compiling again, and as one."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import LAYERS, Attend, perturb
from visionlora.adapters.layer import adapted_layers, adapted_parameters, methods_of

SOME = [case for case in LAYERS if case.name in ("linear", "conv2d_grouped", "conv_transpose2d", "multihead_separate")]


class Net(nn.Module):
    """A convolution, a fused projection of which parts can be adapted, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.block, self.norm, self.head = (
            nn.Conv2d(3, 16, 3),
            Attend(),
            nn.BatchNorm1d(16),
            nn.Linear(16, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.block(self.conv(x).flatten(2).mT).mean(1)))


X = torch.randn(4, 3, 5, 5)


def net(**adapters: dict[str, Any]) -> nn.Module:
    """A model with these adapters, none at its start."""
    model = Net().eval()
    for name, config in adapters.items():
        vl.attach(model, vl.LoRAConfig(**{"rank": 2, **config}), name=name)
    perturb(model, 0.3)
    return model


def run(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(X.to(next(model.parameters()).dtype))


def updates(model: nn.Module, name: str) -> dict[str, Tensor]:
    """What an adapter adds to each weight."""
    found = {}
    for path, layer in adapted_layers(model):
        for parameter, method in methods_of(layer, name).items():
            frozen = layer._parameters[parameter]
            assert frozen is not None
            found[f"{path}.{parameter}"] = method.whole_update(frozen)
    return found


@pytest.mark.parametrize("method", ["lora", "lokr", "loha"])
@pytest.mark.parametrize("case", SOME, ids=lambda case: case.name)
def test_updates_add_up_with_their_weights(case: Any, method: str) -> None:
    model = nn.Sequential(case.make()).double().requires_grad_(False)
    for name, rank in (("a", 1), ("b", 2)):
        vl.attach(model, vl.LoRAConfig(rank=rank, method=method), name=name)
    perturb(model, 0.5)
    vl.activate(model, {"a": 0.5, "b": -1.5})
    a, b = updates(model, "a"), updates(model, "b")
    assert set(a) == set(b) and a
    for path, layer in adapted_layers(model):
        for parameter in adapted_parameters(layer):
            expected = layer._parameters[parameter] + 0.5 * a[f"{path}.{parameter}"] - 1.5 * b[f"{path}.{parameter}"]
            torch.testing.assert_close(getattr(layer, parameter).as_subclass(Tensor), expected, rtol=1e-12, atol=1e-12)
    x = torch.randn(case.shape).double()
    reference = vl.set_route(copy.deepcopy(model), "reference")
    for each in (model, reference):
        each(x).square().sum().backward()
    for (name, own), (_, other) in zip(model.named_parameters(), reference.named_parameters(), strict=True):
        if "adapters" in name:
            assert own.grad is not None and own.grad.any()
            torch.testing.assert_close(own.grad, other.grad)


def test_parts_of_a_projection_add_up_with_their_weights() -> None:
    model = net(a={"targets": ["block.attn:q"]}, b={"targets": ["block.attn:q,v"]})
    vl.activate(model, {"a": 2.0, "b": 1.0})
    a, b = (updates(model, name)["block.attn.in_proj_weight"] for name in ("a", "b"))
    attention = model.block.attn
    expected = attention._parameters["in_proj_weight"] + 2 * a + b
    torch.testing.assert_close(attention.in_proj_weight.as_subclass(Tensor), expected)


def test_a_weight_of_one_is_none_and_disabled_brings_weights_back() -> None:
    model = net(a={}, b={})
    vl.activate(model, ["a", "b"])
    expected = run(model)
    vl.activate(model, {"a": 1, "b": 1.0})
    assert torch.equal(run(model), expected)
    vl.activate(model, {"a": 0.3, "b": -2})
    expected = run(model)
    with vl.disabled(model):
        assert not torch.equal(run(model), expected)
    assert torch.equal(run(model), expected) and torch.equal(run(copy.deepcopy(model)), expected)
    vl.detach(model, "b")
    vl.activate(model, {"a": 0.3})
    assert not torch.equal(run(model), expected)


def test_a_merge_at_a_scale_takes_so_much_of_each_update() -> None:
    model = net(a={"unfreeze": ["head"]}, b={"targets": ["conv"]})
    vl.activate(model, {"a": 1, "b": 2})
    frozen = model.conv._parameters["weight"].detach().clone()
    whole, head = updates(model, "a")["conv.weight"] + 2 * updates(model, "b")["conv.weight"], model.head.weight
    merged = vl.merged(model, scale=-0.5)
    torch.testing.assert_close(merged.conv.weight, frozen - 0.5 * whole)
    assert torch.equal(merged.head.weight, head)
    vl.activate(model, {"a": -0.5, "b": -1})
    torch.testing.assert_close(run(merged), run(model))
    assert type(merged.conv) is nn.Conv2d


def test_ten_adapters_take_turns_in_a_compiled_model_without_compiling_again() -> None:
    compiled: list[int] = []

    def count(graph: Any, _example: Any) -> Any:
        compiled.append(1)
        return graph

    def model(same: bool) -> nn.Module:
        made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4))
        for at, name in enumerate(names):
            config = vl.LoRAConfig(rank=2 if same else 1 + at % 3, alpha=1 + at, targets=["0"], unfreeze=["3"])
            vl.attach(made, vl.LoRAConfig(rank=2, targets=["0"]) if same else config, name=name)
        perturb(made, 0.3)
        return made

    torch.compiler.reset()
    names = [f"cam{index}" for index in range(10)]
    switched, expected = model(same=False), {}
    for name in names:
        vl.activate(switched, name)
        with torch.no_grad():
            switched[3].weight.normal_()
        expected[name] = run(switched)
    vl.pad_ranks(switched)
    program = torch.compile(switched, backend=count, fullgraph=True)
    for name in names:
        vl.activate(switched, name)
        torch.testing.assert_close(run(program), expected[name])
    assert len(compiled) == 1
    assert (torch.pdist(torch.stack(list(expected.values())).flatten(1)) > 1e-3).all()
    # With weights, and with gradients, once more.
    weighted = model(same=True)
    program = torch.compile(weighted, backend=count, fullgraph=True)
    for weights in ({"cam1": 0.5, "cam2": -1.0}, {"cam7": 3.0, "cam3": 0.1}):
        vl.activate(weighted, weights)
        torch.testing.assert_close(program(X), weighted(X))
    assert len(compiled) == 2


def test_padded_adapters_do_what_they_did_and_train_on() -> None:
    model = net(a={"rank": 1, "alpha": 3, "method": "rslora"}, b={"rank": 2})
    vl.activate(model, "a")
    expected = run(model)
    vl.pad_ranks(model)
    torch.testing.assert_close(run(model), expected)
    factors = {name: p for name, p in model.named_parameters() if ".a." in name}
    assert {p.shape[0] if name.endswith("A") else p.shape[1] for name, p in factors.items()} == {2}
    optimizer = torch.optim.AdamW(factors.values(), 0.1)
    model(X).square().sum().backward()
    optimizer.step()
    for name, p in factors.items():
        padding, rest = (p[1:], p[:1]) if name.endswith("A") else (p[:, 1:], p[:, :1])
        assert not padding.any() and rest.any()


@pytest.mark.parametrize("b", [{"targets": ["conv"]}, {"targets": ["block.attn:q,v"], "rank": 3}, {"method": "rslora"}])
def test_stacked_adapters_are_their_sum(b: dict[str, Any], tmp_path: Path) -> None:
    model = net(a={"targets": ["conv", "block.attn:v"]}, b=b).double()
    weights = {"a": 0.5, "b": -2.0}
    vl.activate(model, weights)
    expected = run(model)
    made = vl.combine(model, weights, name="c")
    assert made.error == 0 and "0.00%" in str(made)
    torch.testing.assert_close(run(model), expected, rtol=1e-6, atol=1e-6)
    vl.save_adapter(model, tmp_path / "c.safetensors", name="c")
    vl.activate(model, [])
    for name in "abc":
        vl.detach(model, name)
    vl.load_adapter(model, tmp_path / "c.safetensors")
    torch.testing.assert_close(run(model), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["lora", "loha"])
def test_a_sum_at_a_rank_is_the_best_of_that_rank(method: str) -> None:
    model = net(a={"method": method}, b={"method": method, "rank": 3})
    wanted = {key: a + 0.1 * updates(model, "b")[key] for key, a in updates(model, "a").items()}
    made = vl.combine(model, {"a": 1, "b": 0.1}, name="c", rank=2)
    lost = total = 0.0
    for key, update in updates(model, "c").items():
        sizes = torch.linalg.svdvals(wanted[key].flatten(1).double())
        left = (wanted[key] - update).double().norm().item()
        assert left == pytest.approx(sizes[2:].norm().item(), rel=1e-3, abs=1e-5)
        lost, total = lost + left**2, total + sizes.square().sum().item()
    assert made.error == pytest.approx(math.sqrt(lost / total), rel=1e-3) and made.error > 1e-3
    assert f"{100 * made.error:.2f}% of the updates left out by the rank" in str(made)
    assert vl.combine(model, {"a": 1, "b": 0.1}, name="d", rank=16).error < 1e-5


def ties_by_hand(updates: list[Tensor], density: float) -> Tensor:
    """Of Yadav et al. 2023, algorithm 1, an entry at a time."""
    trimmed = []
    for update in updates:
        threshold = update.abs().flatten().sort(descending=True).values[max(1, round(density * update.numel())) - 1]
        trimmed.append(torch.where(update.abs() >= threshold, update, 0))
    merged = torch.zeros_like(updates[0]).flatten()
    for at, values in enumerate(zip(*[each.flatten().tolist() for each in trimmed], strict=True)):
        sign = math.copysign(1, sum(values))
        agreeing = [value for value in values if value * sign > 0]
        merged[at] = sum(agreeing) / max(1, len(agreeing))
    return merged.view(updates[0].shape)


def test_ties_takes_the_mean_of_what_agrees() -> None:
    model = net(**{name: {"targets": ["conv"]} for name in "abc"})
    found = [updates(model, name)["conv.weight"] for name in "abc"]
    vl.combine(model, {"a": 1, "b": 2, "c": -1}, name="t", rank=16, how="ties", density=0.4)
    wanted = ties_by_hand([found[0], 2 * found[1], -found[2]], 0.4)
    torch.testing.assert_close(updates(model, "t")["conv.weight"], wanted, rtol=1e-4, atol=1e-5)


def test_dare_drops_at_random_and_keeps_the_mean() -> None:
    model = net(a={"targets": ["conv"]}, b={"targets": ["conv"]})
    wanted = updates(model, "a")["conv.weight"] + updates(model, "b")["conv.weight"]
    vl.combine(model, ["a", "b"], name="all", rank=16, how="dare", density=1.0)
    torch.testing.assert_close(updates(model, "all")["conv.weight"], wanted, rtol=1e-4, atol=1e-5)
    for seed in range(60):
        vl.combine(model, ["a", "b"], name=f"d{seed}", rank=16, how="dare", density=0.5, seed=seed)
    drawn = torch.stack([updates(model, f"d{seed}")["conv.weight"] for seed in range(60)])
    assert not torch.allclose(drawn[0], drawn[1])
    # The mean of n draws is off by 1/sqrt(n) of an entry's deviation, which is about the entry.
    assert (drawn.mean(0) - wanted).norm() < 2 * drawn.std(0).norm() / math.sqrt(60)


def test_heads_go_along_and_two_of_one_are_refused() -> None:
    model = net(a={"unfreeze": ["head"], "batchnorm": "recalibrate"}, b={"unfreeze": ["head"]}, c={"targets": ["conv"]})
    for name, value in (("a", 1.0), ("b", 2.0)):
        vl.activate(model, name)
        with torch.no_grad():
            model.head.weight.fill_(value)
    assert "have each their own 'head'; say whose to take: heads='a'" in refusal(
        model, lambda m: vl.combine(m, ["a", "b"], name="d")
    )
    vl.combine(model, ["a", "b", "c"], name="d", heads="b")
    assert vl.adapter_names(model) == ["a", "b", "c", "d"] and (model.head.weight == 2).all()
    vl.combine(model, ["a", "c"], name="e")
    assert (model.head.weight == 1).all()
    with vl.disabled(model):
        assert not (model.head.weight == 1).any()


def test_heads_of_several_tasks_are_side_by_side() -> None:
    """Two tasks on one backbone, each with its own head, active at once."""
    model = timm.create_model("test_vit", num_classes=3)
    model.second_head = nn.Linear(model.num_features, 2)
    for name, head in (("species", "head"), ("weather", "second_head")):
        vl.attach(model, vl.LoRAConfig(rank=2, targets=["attn.qkv"], unfreeze=[head]), name=name)
    perturb(model, 0.2)
    with torch.no_grad():
        model.second_head.weight.fill_(7)
    vl.activate(model, ["species", "weather"])
    trains = {name for name, p in model.named_parameters() if p.requires_grad and "adapters" not in name}
    assert trains == {"head.weight", "head.bias", "second_head.weight", "second_head.bias"}
    vl.activate(model, "species")
    assert not (model.second_head.weight == 7).any()
    vl.activate(model, "weather")
    assert (model.second_head.weight == 7).all()


def refusal(model: nn.Module, act: Callable[[nn.Module], object]) -> str:
    """The one line that an action is refused with; the model is as it was."""
    before, output = copy.deepcopy(model.state_dict()), run(model)
    with pytest.raises(vl.InputError) as error:
        act(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert list(model.state_dict()) == list(before) and torch.equal(run(model), output)
    assert "\n" not in str(error.value)
    return str(error.value)


REFUSED: list[tuple[Callable[[nn.Module], object], str]] = [
    (lambda m: vl.activate(m, {"a": math.nan}), "the weight of 'a' is nan; give a finite number"),
    (lambda m: vl.activate(m, {"a": "much"}), "the weight of 'a' is 'much'"),
    (lambda m: vl.activate(m, {"z": 0.5}), "no adapter 'z' on this model"),
    (
        lambda m: vl.activate(m, {"dora": 0.5}),
        "'dora' is a DoRA on 'conv', which does not add: its weight can only be 1",
    ),
    (lambda m: vl.activate(m, {"dora": 1, "other": 1}), "adapters ['dora', 'other'] don't add up on 'conv'"),
    (lambda m: vl.merge(m, scale=0.5), "'dora' is a DoRA on 'conv', which does not add: its weight can only be 1"),
    (lambda m: vl.merge(m, scale=math.inf), "the weight of 'scale' is inf"),
    (lambda m: vl.combine(m, ["a", "dora"], name="n"), "'dora' is a DoRA on 'conv', which does not add; leave it out"),
    (lambda m: vl.combine(m, ["a", "loha"], name="n"), "'conv' has a LoHa, which has no factors to stack; give a rank"),
    (lambda m: vl.combine(m, [], name="n"), "nothing to combine"),
    (lambda m: vl.combine(m, ["a", "z"], name="n"), "no adapter 'z' on this model"),
    (lambda m: vl.combine(m, ["a"], name="loha"), "the model has an adapter 'loha' already"),
    (lambda m: vl.combine(m, ["a"], name="n", rank=0), "rank is 0; give a whole number of at least 1, or None"),
    (lambda m: vl.combine(m, ["a"], name="n", how="tie"), "no way to combine 'tie' (did you mean 'ties'?)"),
    (lambda m: vl.combine(m, ["a"], name="n", how="dare", density=0), "density is 0; give a share above 0"),
    (lambda m: vl.combine(m, ["a"], name="n", heads="loha"), "heads is 'loha', which is none of the adapters ['a']"),
    (lambda m: vl.pad_ranks(m), "'conv' has a LoHa, whose rank can't be padded to 3"),
]


@pytest.fixture(scope="module")
def crowded() -> nn.Module:
    methods = {"a": {}, "loha": {"method": "loha"}, "big": {"rank": 3}}
    dora = {"method": "dora"}
    return net(**methods, other=dora, dora=dora)


@pytest.mark.parametrize(("act", "expected"), REFUSED, ids=[expected[:40] for _, expected in REFUSED])
def test_what_can_not_be_is_said_in_one_line(
    crowded: nn.Module, act: Callable[[nn.Module], object], expected: str
) -> None:
    assert expected in refusal(crowded, act)


@pytest.mark.parametrize("how", ["sum", "ties"])
def test_updates_that_are_not_finite_are_not_combined(how: Any) -> None:
    model = net(a={}, b={})
    with torch.no_grad():
        model.conv.adapters["a"]["weight"].lora_B[0, 0] = math.nan
    assert "its updates are not finite" in refusal_of_nan(model, lambda m: vl.combine(m, ["a", "b"], "n", 2, how))


def refusal_of_nan(model: nn.Module, act: Callable[[nn.Module], object]) -> str:
    with pytest.raises(vl.InputError) as error:
        act(model)
    assert vl.adapter_names(model) == ["a", "b"]
    return str(error.value)


def test_a_replica_for_data_parallel_has_its_own_methods() -> None:
    """As nn.DataParallel makes it on another device: the children of a replica are replicas."""
    adapters = net(a={}).conv.adapters
    replica = adapters._replicate_for_data_parallel()
    child = adapters["a"]._replicate_for_data_parallel()
    replica._modules = {"a": child}
    assert replica.live is None and adapters.live is not None
    child["weight"] = copy.deepcopy(adapters["a"]["weight"])
    assert replica._acting()["weight"] == (child["weight"],)
    assert adapters.live["weight"] == (adapters["a"]["weight"],) != replica._acting()["weight"]
