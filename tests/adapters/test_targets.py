"""Which layers a config names, and what is said of the others."""

from collections import Counter
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

import visionlora as vl
from helpers.cases import MODELS
from visionlora.adapters.report import collapse
from visionlora.adapters.targets import resolve

MAKE = {case.name: case.make for case in MODELS}


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(4, 4, 1)
        self.fc2 = nn.Conv2d(4, 4, 1)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.se = SqueezeExcite()


class Net(nn.Module):
    """Blocks with their own ``fc``, and a head of that name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(Block(), Block())
        self.layer2 = nn.Sequential(Block())
        self.fc = nn.Linear(4, 3)


def chosen(model: nn.Module, **config: Any) -> list[str]:
    """Names of the adapted parameters; those of the layer's parts have them behind a colon."""
    targets, _, _ = resolve(model, vl.LoRAConfig(**config))
    return [f"{t.path}:{t.parts}" if t.parts else t.path for t in targets]


def refusal(model: nn.Module, **config: Any) -> str:
    """The one-line message of an attach that must fail and leave nothing behind."""
    before = [type(module) for module in model.modules()]
    with pytest.raises(vl.InputError) as error:
        vl.attach(model, vl.LoRAConfig(**config))
    assert not vl.adapter_names(model) and [type(module) for module in model.modules()] == before
    assert "\n" not in str(error.value)
    return str(error.value)


def attention_net() -> nn.Module:
    return MAKE["timm_vit_tiny_patch16_224"]()


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["layer1.0.conv1"], ["layer1.0.conv1"]),
        (["se.fc"], ["layer1.0.se.fc", "layer1.1.se.fc", "layer2.0.se.fc"]),
        (["conv1"], ["layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1"]),
        (["fc"], ["fc"]),
        (["layer1.*.conv1"], ["layer1.0.conv1", "layer1.1.conv1"]),
        (["layer?.0.conv1"], ["layer1.0.conv1", "layer2.0.conv1"]),
        (["layer[2].*.fc2"], ["layer2.0.se.fc2"]),
        (["re:layer1\\.\\d\\.conv1|fc"], ["layer1.0.conv1", "layer1.1.conv1", "fc"]),
        ("linear", ["fc"]),
        (["layer2.0.conv1", "linear"], ["layer2.0.conv1", "fc"]),
    ],
)
def test_names_patterns_and_presets(targets: str | list[str], expected: list[str]) -> None:
    assert chosen(Net(), targets=targets) == expected


def test_a_regular_expression_must_match_the_whole_name() -> None:
    assert "matches no layer" in refusal(Net(), targets=["re:layer1.0.con"])


def test_an_invalid_regular_expression_is_named() -> None:
    assert "'re:layer(' is not a regular expression" in refusal(Net(), targets=["re:layer("])


def test_a_module_called_like_a_preset_is_meant_by_its_name() -> None:
    model = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 1), "other": nn.Conv2d(4, 4, 1)})
    assert chosen(model, targets="conv") == ["conv"]


def test_unfreezing_an_exact_name_leaves_longer_names_with_that_end_alone() -> None:
    model = Net()
    report = vl.attach(model, vl.LoRAConfig(targets=["conv1"], unfreeze=["fc"]))
    assert report.unfrozen == [("fc", 15)]
    assert model.fc.weight.requires_grad and not model.layer1[0].se.fc.weight.requires_grad


@pytest.mark.parametrize("unfreeze", [["layer2*"], ["layer2.0.se", "layer2"], ["layer2", "layer2"]])
def test_a_module_that_is_unfrozen_twice_counts_once(unfreeze: list[str]) -> None:
    model = Net()
    report = vl.attach(model, vl.LoRAConfig(targets=["fc"], unfreeze=unfreeze))
    size = sum(p.numel() for p in model.layer2.parameters())
    assert report.unfrozen == [("layer2", size)]
    assert report.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_the_report_counts_what_trains() -> None:
    model = Net()
    base = sum(p.numel() for p in model.parameters())
    report = vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=["fc"], rank_pattern={"conv1": 3}))
    assert report.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert report.total == base
    assert f"{report.trainable:,} of {base:,} parameters" in str(report)


def test_all_leaves_out_what_is_unfrozen() -> None:
    assert "fc" not in chosen(Net(), targets="all", unfreeze=["fc"])


CNN_PRESETS = [
    ("timm_test_resnet", "all", {"conv1.*": 3, "fc": 1, "*": 12}),
    ("timm_test_resnet", "conv", {"conv1.*": 3, "*": 12}),
    ("timm_test_resnet", "linear", {"fc": 1}),
    ("torchvision_resnet", "all", {"conv1": 1, "fc": 1, "*": 11}),
    ("torchvision_resnet", "conv", {"conv1": 1, "*": 11}),
]


@pytest.mark.parametrize(("name", "preset", "expected"), CNN_PRESETS)
def test_presets_on_cnns(name: str, preset: str, expected: dict[str, int]) -> None:
    """Layers outside the stages by name, those inside (``*``) by their number."""
    made = {"torchvision_resnet": lambda: torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])}
    model = (MAKE | made)[name]()
    found = Counter("*" if path.startswith("layer") else collapse(path) for path in chosen(model, targets=preset))
    assert found == expected
    kinds = {"all": (nn.Conv2d, nn.Linear), "conv": nn.Conv2d, "linear": nn.Linear}[preset]
    assert found.total() == sum(isinstance(module, kinds) for module in model.modules())


ATTENTION = [
    ("timm_vit_tiny_patch16_224", {"blocks.*.attn.qkv": 2, "blocks.*.attn.proj": 2}),
    ("timm_beit_base_patch16_224", {"blocks.*.attn.qkv": 2, "blocks.*.attn.proj": 2}),
    ("timm_eva02_tiny_patch14_224", {"blocks.*.attn.qkv": 2, "blocks.*.attn.proj": 2}),
    (
        "torchvision_vit",
        {f"encoder.layers.encoder_layer_{n}.self_attention{end}": 1 for n in (0, 1) for end in ("", ".out_proj")},
    ),
    # the MLP that makes Swin V2's position bias lies inside the attention module, and is no projection
    ("timm_swinv2_tiny_window8_256", {"layers.*.blocks.*.attn.qkv": 2, "layers.*.blocks.*.attn.proj": 2}),
    ("torchvision_swin", {"features.*.*.attn.qkv": 2, "features.*.*.attn.proj": 2}),
    ("timm_test_coatnet", {"stages.*.blocks.*.attn.qkv": 3, "stages.*.blocks.*.attn.proj": 3}),
    (
        "timm_levit_128s",
        {
            "stages.*.blocks.*.attn.qkv.linear": 9,
            "stages.*.blocks.*.attn.proj.ln.linear": 9,
            "stages.*.downsample.attn_downsample.q.ln.linear": 2,
            "stages.*.downsample.attn_downsample.kv.linear": 2,
            "stages.*.downsample.attn_downsample.proj.ln.linear": 2,
        },
    ),
]


@pytest.mark.parametrize(("name", "expected"), ATTENTION, ids=[name for name, _ in ATTENTION])
def test_the_attention_preset_is_the_projections(name: str, expected: dict[str, int]) -> None:
    assert Counter(map(collapse, chosen(MAKE[name](), targets="attention"))) == expected


@pytest.mark.parametrize("name", [name for name, _ in ATTENTION])
def test_all_is_every_linear_and_convolution_layer(name: str) -> None:
    model = MAKE[name]()
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.MultiheadAttention)
    layers = [path for path, module in model.named_modules() if isinstance(module, kinds)]
    assert chosen(model, targets="all") == layers


def test_the_attention_preset_on_a_cnn_says_that_there_is_none() -> None:
    assert "target 'attention' matches no layer; there are: conv1.0" in refusal(
        MAKE["timm_test_resnet"](), targets="attention"
    )


def test_exclude() -> None:
    report = vl.attach(Net(), vl.LoRAConfig(targets="conv", exclude=["layer1.*", "se.fc2"]))
    assert [layer.path for layer in report.adapted] == ["layer2.0.conv1", "layer2.0.se.fc"]
    assert {left.path for left in report.left_out if left.reason == "excluded"} == {
        "layer1.0.conv1",
        "layer1.0.se.fc",
        "layer1.0.se.fc2",
        "layer1.1.conv1",
        "layer1.1.se.fc",
        "layer1.1.se.fc2",
        "layer2.0.se.fc2",
    }


def test_exclude_that_matches_nothing_or_everything_is_refused() -> None:
    assert "exclude 'layer2.0.conv2' matches no layer (did you mean 'layer2.0.conv1'?)" in refusal(
        Net(), exclude=["layer2.0.conv2"]
    )
    assert "leaves none of the targets" in refusal(Net(), targets=["fc"], exclude=["linear"])


def test_the_last_matching_rank_and_alpha_win() -> None:
    model = Net()
    config = vl.LoRAConfig(
        rank=2,
        alpha=2,
        targets=["conv1", "fc"],
        rank_pattern={"layer*": 4, "layer2.*": 3},
        alpha_pattern={"layer1.1.conv1": 7, "conv": 9},
    )
    targets, _, _ = resolve(model, config)
    assert {t.path: (t.rank, t.alpha) for t in targets} == {
        "layer1.0.conv1": (4, 9),
        "layer1.1.conv1": (4, 9),
        "layer2.0.conv1": (3, 9),
        "fc": (2, 2),
    }
    vl.attach(model, config)
    assert model.layer2[0].conv1.adapters["default"]["weight"].lora_A.shape == (3, 4, 3, 3)
    assert model.layer2[0].conv1.adapters["default"]["weight"].scale == 9 / 3


@pytest.mark.parametrize("option", ["rank_pattern", "alpha_pattern"])
def test_a_rank_or_alpha_pattern_for_no_adapted_layer_is_refused(option: str) -> None:
    assert "pattern 'fc' matches no adapted layer" in refusal(Net(), targets=["conv1"], **{option: {"fc": 4}})


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["attn.qkv:q", "attn.qkv:v"], ["attn.qkv:q,v"]),
        (["attn.qkv:q", "re:.*qkv:q,k"], ["attn.qkv:k,q"]),
        (["attn.qkv:q", "attn.qkv"], ["attn.qkv"]),
        (["attn.qkv", "attn.qkv:q"], ["attn.qkv"]),
        (["attention", "attn.qkv:q"], ["attn.qkv", "attn.proj"]),
        (["attn.qkv", "attn.qkv"], ["attn.qkv"]),
    ],
)
def test_overlapping_targets_are_joined(targets: list[str], expected: list[str]) -> None:
    found = chosen(attention_net(), targets=targets)
    assert found == [f"blocks.{n}.{name}" for n in (0, 1) for name in expected]


def test_every_layer_is_adapted_unfrozen_or_left_out_with_a_reason() -> None:
    model = Net()
    report = vl.attach(model, vl.LoRAConfig(targets=["conv1"], unfreeze=["fc"], exclude=["layer2.0.conv1"]))
    reasons = {left.path: left.reason for left in report.left_out}
    assert reasons["layer1.0.norm"] == "normalisation layer"
    assert reasons["layer1.0.se.fc"] == "not targeted"
    assert reasons["layer2.0.conv1"] == "excluded"
    named = {layer.path for layer in report.adapted} | set(reasons) | {path for path, _ in report.unfrozen}
    with_parameters = {p for p, m in Net().named_modules() if any(True for _ in m.parameters(recurse=False))}
    assert named == with_parameters
    text = str(report)
    for line in (
        "left out, normalisation layer: layer1.*.norm (BatchNorm2d x 2), layer2.0.norm (BatchNorm2d)",
        "left out, not targeted: layer1.*.se.fc (Conv2d x 2), layer1.*.se.fc2 (Conv2d x 2)",
        "left out, excluded: layer2.0.conv1 (Conv2d)",
    ):
        assert line in text
    assert "layer1.*.conv1" in text and "trains fully" in text


def test_an_own_class_with_parameters_is_left_out_by_name() -> None:
    class Gain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(3))

    report = vl.attach(nn.Sequential(nn.Linear(3, 3), Gain()))
    assert [(left.path, left.kind) for left in report.left_out] == [("1", "Gain")]
    assert "1 (Gain)" in str(report)


def tie(layer: nn.Linear, to: nn.Linear) -> nn.Linear:
    layer.weight = to.weight
    return layer


def integer(layer: nn.Linear) -> nn.Linear:
    layer.weight = nn.Parameter(torch.ones(4, 4, dtype=torch.int8), requires_grad=False)
    return layer


OBSTACLES = [
    ("old weight_norm", lambda: weight_norm(nn.Linear(4, 4)), "parametrized"),
    ("weight_norm", lambda: parametrizations.weight_norm(nn.Linear(4, 4)), "parametrized"),
    ("weight_norm without bias", lambda: parametrizations.weight_norm(nn.Linear(4, 4, bias=False)), "parametrized"),
    ("old spectral_norm", lambda: spectral_norm(nn.Conv2d(4, 4, 1)), "parametrized"),
    ("spectral_norm", lambda: parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)), "parametrized"),
    (
        "weight_norm on one of three weights",
        lambda: parametrizations.weight_norm(nn.MultiheadAttention(4, 1, kdim=3, vdim=3), "q_proj_weight"),
        "parametrized",
    ),
    ("lazy", lambda: nn.LazyLinear(4), "not known before a first forward"),
    ("meta", lambda: nn.Linear(4, 4, device="meta"), "meta device; load the weights first"),
    ("integer", lambda: integer(nn.Linear(4, 4)), "weight is int8"),
    ("tied", lambda: nn.Linear(4, 4), "tied: other.weight = layer.weight"),
    ("norm", lambda: nn.LayerNorm(4), "normalisation layer"),
    ("batch norm", lambda: nn.BatchNorm2d(4), "normalisation layer"),
    ("embedding", lambda: nn.Embedding(4, 4), "neither linear nor convolution"),
]


@pytest.fixture(params=OBSTACLES, ids=lambda case: case[0])
def unfit(request: pytest.FixtureRequest) -> tuple[nn.Module, str]:
    """A model whose ``layer`` can't be adapted, and why."""
    name, make, reason = request.param
    model = nn.ModuleDict({"good": nn.Linear(4, 4), "other": nn.Linear(4, 4), "layer": make()})
    if name == "tied":
        tie(model["layer"], model["other"])
    return model, reason


def test_a_layer_that_cannot_be_adapted_is_refused_by_name(unfit: tuple[nn.Module, str]) -> None:
    model, reason = unfit
    message = refusal(model, targets=["good", "layer"])
    assert message.startswith("target 'layer'") and type(model["layer"]).__name__ in message and reason in message


def test_a_layer_that_cannot_be_adapted_is_left_out_of_all_with_the_reason(unfit: tuple[nn.Module, str]) -> None:
    model, reason = unfit
    report = vl.attach(model, vl.LoRAConfig(targets="all"))
    assert "layer" not in {layer.path for layer in report.adapted} and "good" in {a.path for a in report.adapted}
    (left_out,) = (left for left in report.left_out if left.path == "layer")
    assert reason in left_out.reason and reason in str(report)


def test_a_container_is_refused_with_the_glob_for_what_is_inside() -> None:
    message = refusal(Net(), targets=["layer1"])
    assert message == "target 'layer1' is a Sequential, not a layer; try 'layer1.*'"
    assert len(chosen(Net(), targets=["layer1.*"])) == 6


def test_a_typo_is_answered_with_the_nearest_name() -> None:
    message = refusal(Net(), targets=["layer2.0.cnov1"])
    assert "did you mean 'layer2.0.conv1'?" in message and "there are: layer1.0.conv1" in message
    assert "did you mean 'layer2'?" in refusal(Net(), unfreeze=["layer22"])


def test_a_layer_cannot_be_targeted_and_unfrozen() -> None:
    assert "'fc' is unfrozen and trains fully" in refusal(Net(), targets=["fc"], unfreeze=["fc"])


def test_nothing_to_train_is_refused() -> None:
    assert "nothing to train" in refusal(Net(), targets=[])
    assert vl.attach(Net(), vl.LoRAConfig(targets=[], unfreeze=["fc"])).trainable == 15


def test_unfreezing_what_is_shared_with_the_rest_is_refused() -> None:
    """A layer that nobody named would train."""
    model = Net()
    model.fc.weight = nn.Parameter(torch.randn(4, 4))
    model.twin = tie(nn.Linear(4, 4), model.fc)
    for unfreeze in (["twin"], ["fc"]):
        assert "shared with the rest of the model (fc.weight = twin.weight)" in refusal(
            model, targets=["conv1"], unfreeze=unfreeze
        )
    model = Net()
    model.second = nn.Sequential(model.layer1[0].conv1)
    assert "shared with the rest of the model (layer1.0.conv1" in refusal(model, targets=["fc"], unfreeze=["second"])


def test_unfreezing_a_lazy_layer_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(3))
    assert "unfreeze '1': the shape of its weight is not known" in refusal(model, targets=["0"], unfreeze=["1"])


def test_a_second_adapter_takes_the_same_layers() -> None:
    model = Net()
    first = vl.attach(model, vl.LoRAConfig(rank=2), name="first")
    second = vl.attach(model, vl.LoRAConfig(rank=1), name="second")
    assert [layer.path for layer in first.adapted] == [layer.path for layer in second.adapted]
    assert first.total == second.total
    assert [left.path for left in first.left_out] == [left.path for left in second.left_out]
    adapters = model.fc.adapters
    assert [adapters[name]["weight"].rank for name in ("first", "second")] == [1, 1]
    assert "first" not in refusal_of_typo(model)


def refusal_of_typo(model: nn.Module) -> str:
    """The names that a message offers must be the base's, never those inside an adapter."""
    with pytest.raises(vl.InputError) as error:
        vl.attach(model, vl.LoRAConfig(targets=["fc.adapters.first.wieght"]), name="third")
    return str(error.value).partition("matches no layer")[2]


def test_a_lazy_layer_that_is_left_out_stays_frozen_when_it_gets_its_shape() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(3))
    vl.attach(model, vl.LoRAConfig(targets=["0"]))
    model(torch.randn(2, 4))
    assert not model[1].weight.requires_grad
    vl.detach(model)
    assert model[1].weight.requires_grad


def test_what_lies_before_a_module_is_left_out() -> None:
    model = timm.create_model("test_vit", num_classes=2)
    targets, _, _ = resolve(model, vl.LoRAConfig(targets=["attn.qkv", "mlp.fc1"], exclude=["before:blocks.1"]))
    first = min(int(target.path.split(".")[1]) for target in targets)
    assert first == 1 and {target.path.split(".", 2)[2] for target in targets} == {"attn.qkv", "mlp.fc1"}
    everything, _, _ = resolve(model, vl.LoRAConfig())
    assert resolve(model, vl.LoRAConfig(exclude=["before:patch_embed"]))[0] == everything
    with pytest.raises(vl.InputError, match="there is no module 'blocks.99' to begin at.*there are: .*blocks.1"):
        resolve(model, vl.LoRAConfig(exclude=["before:blocks.99"]))
