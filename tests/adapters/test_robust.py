"""What must not break an adapted model: bad input, errors inside, and torch's own machinery."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import visionlora as vl
from helpers.cases import perturb
from visionlora.adapters.methods.lora import LoRA, RSLoRA


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu()
        x = self.block(x).flatten(2).transpose(1, 2)  # (N, H * W, 8)
        x = self.attn(x, x, x, need_weights=False)[0]
        return self.head(x.mean(1))


@pytest.fixture
def base() -> nn.Module:
    return Net().eval().requires_grad_(False)


@pytest.fixture
def model(base: nn.Module) -> nn.Module:
    model = copy.deepcopy(base)
    vl.attach(model, vl.LoRAConfig(rank=2))
    perturb(model)
    return model


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 6, 6)


def snapshot(model: nn.Module) -> tuple[Any, ...]:
    modules = [(name, type(module), module.training, sorted(vars(module))) for name, module in model.named_modules()]
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    values = {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}
    return modules, flags, values, vl.adapter_names(model)


def refusal(model: nn.Module, act: Callable[[nn.Module], object]) -> str:
    """The one line that an action is refused with; the model must be left as it was."""
    before = snapshot(model)
    with pytest.raises(vl.InputError) as error:
        act(model)
    assert snapshot(model) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def factor_gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if ".lora_" in name}


@pytest.mark.parametrize("layer", ["conv", "head", "attn"])
def test_an_attribute_error_inside_does_not_fall_back_to_the_frozen_weight(
    model: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch, layer: str
) -> None:
    def fail(*_: object) -> Tensor:
        raise AttributeError("no such thing")

    monkeypatch.setattr(LoRA, "forward", fail)
    name = "in_proj_weight" if layer == "attn" else "weight"
    with pytest.raises(
        RuntimeError, match=f"{name} of an adapted {type(getattr(model, layer)).__name__}: no such thing"
    ):
        getattr(getattr(model, layer), name)
    with pytest.raises(RuntimeError, match="no such thing"):
        model(x)


BAD_ATTACHES = [
    ("bad target among good ones", {"targets": ["conv", "head", "nope"]}, "target 'nope' matches no layer"),
    ("bad exclude", {"exclude": ["nope"]}, "exclude 'nope'"),
    ("bad unfreeze", {"unfreeze": ["head", "nope"]}, "unfreeze 'nope'"),
    ("bad rank pattern", {"rank_pattern": {"nope": 3}}, "pattern 'nope'"),
    ("parts of what has none", {"targets": ["head", "conv:q"]}, "orders q, k and v in 'conv' is not known"),
]


@pytest.mark.parametrize(("config", "expected"), [b[1:] for b in BAD_ATTACHES], ids=[b[0] for b in BAD_ATTACHES])
def test_a_failed_attach_leaves_the_model_as_it_was(base: nn.Module, config: dict[str, Any], expected: str) -> None:
    assert expected in refusal(base, lambda model: vl.attach(model, vl.LoRAConfig(**config)))


def test_attaching_twice_under_one_name_is_refused(model: nn.Module) -> None:
    assert "has an adapter 'default' already" in refusal(model, vl.attach)
    vl.attach(model, name="second")
    assert vl.adapter_names(model) == ["default", "second"]


BAD_NAMES = ["", "a.b", "a b", "a/b", "tür", "name\n", "keys", "items", "forward", "training", "active", "_modules"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_no_adapter_can_have_is_refused(base: nn.Module, name: str) -> None:
    assert "can't name an adapter" in refusal(base, lambda model: vl.attach(model, name=name.replace("\n", "\r")))
    with pytest.raises(vl.InputError):
        vl.attach(base, name=name)


@pytest.mark.parametrize("name", ["default", "cam-3", "2024_01", "weight", "A"])
def test_ordinary_names_are_taken(base: nn.Module, x: Tensor, name: str) -> None:
    vl.attach(base, name=name)
    assert vl.adapter_names(base) == [name]
    assert base(x).isfinite().all()


def test_unknown_adapters_are_refused_with_the_nearest(model: nn.Module) -> None:
    for act in (lambda m: vl.activate(m, "defualt"), lambda m: vl.detach(m, "defualt")):
        assert "no adapter 'defualt' on this model (did you mean 'default'?)" in refusal(model, act)


BAD_CONFIGS = [
    *[({"rank": rank}, f"rank is {rank!r}") for rank in (0, -1, 1.5, True, "8", None)],
    *[({"alpha": alpha}, f"alpha is {alpha!r}") for alpha in (math.nan, math.inf, -math.inf, 0, 0.0, "16", True)],
    ({"rank_pattern": {"head": 0}}, "rank_pattern['head'] is 0"),
    ({"alpha_pattern": {"head": math.nan}}, "alpha_pattern['head'] is nan"),
    ({"method": "lore"}, "lora, rslora, dora, lokr, loha, lora_fa, tucker, ia3 (did you mean 'lora'?)"),
    ({"batchnorm": "froze"}, "batchnorm is 'froze'; choose from frozen, recalibrate, train (did you mean 'frozen'?)"),
    ({"unfreeze": "head"}, "give a list of names: unfreeze=['head']"),
    ({"exclude": "head"}, "give a list of names: exclude=['head']"),
]


@pytest.mark.parametrize(("values", "expected"), BAD_CONFIGS, ids=lambda value: str(value)[:40])
def test_a_bad_setting_is_refused(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(vl.InputError) as error:
        vl.LoRAConfig(**values)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_config_survives_plain_data_and_refuses_unknown_keys() -> None:
    config = vl.LoRAConfig(rank=3, alpha=1, targets=["a:q"], rank_pattern={"b": 2}, method="rslora")
    assert vl.LoRAConfig.from_dict(config.to_dict()) == config
    with pytest.raises(vl.InputError, match=r"unknown LoRA setting 'alhpa' \(did you mean 'alpha'\?\)"):
        vl.LoRAConfig.from_dict({"alhpa": 3})


def test_the_scale_is_that_of_the_method() -> None:
    weight = torch.randn(6, 5)
    for method, scale in ((LoRA, 12 / 4), (RSLoRA, 12 / 2)):
        lora = method(weight, rank=4, alpha=12)
        nn.init.normal_(lora.lora_B)
        torch.testing.assert_close(lora(weight), weight + scale * lora.lora_B @ lora.lora_A)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "factor", ["attn.adapters.default.in_proj_weight.lora_B", "head.adapters.default.weight.lora_B"]
)
def test_a_factor_that_is_not_finite_is_not_merged(model: nn.Module, value: float, factor: str) -> None:
    with torch.no_grad():
        model.get_parameter(factor)[0, 0] = value
    layer, _, rest = factor.partition(".adapters.default.")
    message = refusal(model, vl.merge)
    assert message.startswith(f"{layer}.{rest.removesuffix('.lora_B')} is not finite")


@pytest.mark.filterwarnings("ignore")
def test_compiled_without_a_break_equals_eager(model: nn.Module, x: Tensor) -> None:
    torch.compiler.reset()
    eager, compiled = copy.deepcopy(model), torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), eager(x))
    for each in (compiled, eager):
        each(x).square().sum().backward()
    expected = factor_gradients(eager)
    for name, gradient in factor_gradients(model).items():
        torch.testing.assert_close(gradient, expected[name])
        assert gradient.abs().sum() > 0
    with torch.no_grad():
        for each in (model, eager):
            for parameter in each.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
    torch.testing.assert_close(compiled(x), eager(x))
    with vl.disabled(model), vl.disabled(eager):
        torch.testing.assert_close(compiled(x), eager(x))


@pytest.mark.filterwarnings("ignore")
def test_a_merged_model_exports(model: nn.Module, x: Tensor) -> None:
    expected = model(x)
    exported = torch.export.export(vl.merged(model), (x,))
    torch.testing.assert_close(exported.module()(x), expected)
    assert not any("lora" in name for name in exported.state_dict)


def test_under_autocast_small_updates_are_added_in_float32(base: nn.Module) -> None:
    """1 + 2^-12 is 1 in bf16: added there, and not before the cast, two such updates would be lost."""
    layer = base.head
    with torch.no_grad():
        layer.weight.fill_(1)
    for name in ("one", "two"):
        vl.attach(base, vl.LoRAConfig(rank=1, alpha=1, targets=["head"]), name=name)
        with torch.no_grad():
            layer.adapters[name]["weight"].lora_A.fill_(1)
            layer.adapters[name]["weight"].lora_B.fill_(2**-12)
    vl.activate(base, ["one", "two"])
    with torch.autocast("cpu", torch.bfloat16):
        weight = layer.weight
        assert weight.dtype == torch.float32 and torch.equal(weight, torch.full_like(weight, 1 + 2 * 2**-12))
        assert layer(torch.ones(1, 8)).dtype == torch.bfloat16


def test_under_autocast_every_factor_gets_a_float32_gradient(model: nn.Module, x: Tensor) -> None:
    expected = copy.deepcopy(model)
    expected(x).square().sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)
    out.float().square().sum().backward()
    exact = factor_gradients(expected)
    for name, gradient in factor_gradients(model).items():
        assert gradient.dtype == torch.float32
        assert F.cosine_similarity(gradient.flatten(), exact[name].flatten(), dim=0) > 0.99, name


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing_gives_the_same_gradients(model: nn.Module, x: Tensor, use_reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.net, x, use_reentrant=use_reentrant)

    plain = copy.deepcopy(model)
    plain(x).square().sum().backward()
    # The reentrant kind needs an input that requires a gradient.
    Checkpointed(model)(x.clone().requires_grad_()).square().sum().backward()
    expected = factor_gradients(plain)
    for name, gradient in factor_gradients(model).items():
        torch.testing.assert_close(gradient, expected[name])
        assert gradient.any()


class Shared(nn.Module):
    """One layer under two names, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.first(self.second(self.first(x).tanh()).tanh())


def test_a_layer_with_two_names_is_adapted_once_and_may_be_called_often() -> None:
    model = Shared()
    report = vl.attach(model, vl.LoRAConfig(rank=2))
    perturb(model, 0.3)
    assert [layer.path for layer in report.adapted] == ["first"] and model.second is model.first
    assert report.total == 30
    x = torch.randn(4, 5)
    expected, out = vl.merged(model), model(x)
    torch.testing.assert_close(out, expected(x))
    lora = model.first.adapters["default"]["weight"]
    out.square().sum().backward()
    expected(x).square().sum().backward()
    torch.testing.assert_close(lora.lora_B.grad, lora.scale * expected.first.weight.grad @ lora.lora_A.T)
    vl.merge(model)
    assert type(model.second) is nn.Linear and torch.equal(model(x), expected(x))


def test_low_precision_weights_are_noted_and_keep_float32_factors(x: Tensor) -> None:
    model = Net().bfloat16().eval()
    report = vl.attach(model, vl.LoRAConfig(rank=2))
    beside = {layer.path for layer in report.adapted if "runs as a branch; merging rounds it" in layer.note}
    assert beside == {"conv", "block.0", "block.2", "head"}
    (dense,) = (layer for layer in report.adapted if layer.parameter == "in_proj_weight")
    assert "stored in bfloat16: small updates round away" in dense.note and "stored in bfloat16" in str(report)
    assert all(p.dtype == torch.float32 for name, p in model.named_parameters() if ".lora_" in name)
    perturb(model)
    assert model.conv.weight.dtype == torch.bfloat16
    out = model(x.bfloat16())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(vl.merge(model)(x.bfloat16()), out, rtol=0.05, atol=0.05)


def test_a_rank_that_would_be_larger_than_the_layer_is_noted() -> None:
    report = vl.attach(Net(), vl.LoRAConfig(rank=4, targets=["head"]))
    assert report.adapted[0].note == "rank 4 would be larger than the layer" and report.adapted[0].note in str(report)
    assert not vl.attach(Net(), vl.LoRAConfig(rank=1, targets=["head"])).adapted[0].note


def test_ordinary_layers_have_no_note(base: nn.Module) -> None:
    assert not any(layer.note for layer in vl.attach(base, vl.LoRAConfig(rank=2)).adapted)


@pytest.mark.parametrize("when", ["before attach", "after attach"])
def test_channels_last(base: nn.Module, x: Tensor, when: str) -> None:
    plain, expected = copy.deepcopy(base), base(x)
    if when == "before attach":
        base = base.to(memory_format=torch.channels_last)
    vl.attach(base, vl.LoRAConfig(rank=2))
    base = base.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(base(x), expected)
    perturb(base)
    assert base.conv.weight.is_contiguous(memory_format=torch.channels_last)
    out = base(x)
    out.square().sum().backward()
    assert all(gradient.any() for gradient in factor_gradients(base).values())
    plain.load_state_dict(vl.merged(base).state_dict())
    torch.testing.assert_close(plain(x.contiguous()), out)
    torch.testing.assert_close(vl.merge(base)(x), out)
    assert base.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_base_file_loads_into_an_adapted_model(model: nn.Module, x: Tensor) -> None:
    """Parameter names do not change, so the base's weights can be loaded after the attach."""
    other = Net().eval()
    missing, unexpected = model.load_state_dict(other.state_dict(), strict=False)
    assert not unexpected and all(".lora_" in name for name in missing)
    with vl.disabled(model):
        torch.testing.assert_close(model(x), other(x))


def test_state_dict_of_the_factors_round_trips(model: nn.Module, x: Tensor) -> None:
    expected, saved = model(x), copy.deepcopy(model.state_dict())
    perturb(model, 0.3)
    assert not torch.allclose(model(x), expected)
    model.load_state_dict(saved)
    assert torch.equal(model(x), expected)


def test_a_second_adapter_may_take_other_weights_of_one_layer() -> None:
    attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=4)
    model = nn.ModuleDict({"attn": attention})
    frozen = {name: attention._parameters[name] for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight")}
    for name, target in (("first", "attn:q"), ("second", "attn:k,v")):
        vl.attach(model, vl.LoRAConfig(rank=2, targets=[target]), name=name)
        perturb(model)
    vl.activate(model, ["first", "second"])
    assert not any(torch.equal(getattr(attention, name), weight) for name, weight in frozen.items())
    vl.detach(model, "second")
    vl.activate(model, "first")
    assert torch.equal(attention.v_proj_weight, frozen["v_proj_weight"])
    assert not torch.equal(attention.q_proj_weight, frozen["q_proj_weight"])
    vl.detach(model)
    assert type(attention) is nn.MultiheadAttention and attention.q_proj_weight is frozen["q_proj_weight"]


def test_torch_fx_sees_an_adapted_layer_as_the_layer_that_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    vl.attach(model, vl.LoRAConfig(rank=2))
    traced = torch.fx.symbolic_trace(model)
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["0", "1", "2"]
