"""Adapters of PEFT's making and for PEFT: the same outputs in both directions, or one line that says why not."""

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import VIT, Attend, perturb

peft = pytest.importorskip("peft")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of what it guesses about transformers
        yield


class Attention(nn.Module):
    """``nn.MultiheadAttention`` beside layers in one, two and three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.volume, self.image, self.line = (
            nn.Conv3d(2, 4, 2),
            nn.Conv2d(12, 8, 3, padding="same"),
            nn.Conv1d(8, 16, 1),
        )
        self.block, self.norm = Attend(), nn.BatchNorm1d(5)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.line(self.image(self.volume(x).flatten(1, 2)).flatten(2))  # (N, 16, P)
        x = x[..., :5].mT  # (N, 5, 16)
        return self.head(self.norm(self.block(x)).mean(1))


Make = Callable[[], nn.Module]
IMAGES, VOLUMES = torch.randn(2, 3, 64, 64), torch.randn(2, 2, 4, 5, 5)


def attention() -> nn.Module:
    return Attention()


def vit() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=64, **VIT)


def resnet() -> nn.Module:
    return timm.create_model("test_resnet", num_classes=5, zero_init_last=False)


def convnext() -> nn.Module:
    return timm.create_model("test_convnext", num_classes=5, ls_init_value=None)


VIT_LAYERS = ["patch_embed.proj", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
RESNET_LAYERS = ["conv1.0", "layer1.0.conv1", "conv2", "downsample.1"]
CONVNEXT_LAYERS = ["stem.0", "mlp.fc1", "mlp.fc2", "downsample.1"]
ATTENTION_LAYERS = ["volume", "image", "line", "block.attn"]
ATTENTION_WITH_OUT = [*ATTENTION_LAYERS, "block.attn.out_proj"]

# Model, its layers as PEFT names them, settings of PEFT's.
THEIRS: list[tuple[Make, list[str], dict[str, Any]]] = [
    (vit, VIT_LAYERS, {"rank_pattern": {"attn.qkv": 2}, "alpha_pattern": {r"blocks\.1\.attn\.qkv": 5, "fc1": 1}}),
    (vit, VIT_LAYERS, {"use_dora": True, "use_rslora": True, "modules_to_save": ["head"]}),
    (vit, VIT_LAYERS, {"loha": {"use_effective_conv2d": True}}),
    (vit, VIT_LAYERS, {"lokr": {"decompose_both": True, "use_effective_conv2d": True}}),
    (resnet, RESNET_LAYERS, {"use_rslora": True, "modules_to_save": ["fc", "layer2.0.bn1"]}),
    (resnet, RESNET_LAYERS, {"use_dora": True}),
    (resnet, RESNET_LAYERS, {"loha": {"use_effective_conv2d": True}}),
    (resnet, RESNET_LAYERS, {"lokr": {"use_effective_conv2d": True, "rank_pattern": {"conv2": 1}}}),
    (convnext, CONVNEXT_LAYERS, {"modules_to_save": ["head.fc"], "bias": "all"}),
    (attention, ATTENTION_LAYERS, {"lora_dropout": 0.5, "bias": "lora_only"}),
    (attention, ["image", "head"], {"loha": {}}),
    (attention, ["image", "head"], {"lokr": {}}),
]


def example(make: Make) -> Tensor:
    return VOLUMES if make is attention else IMAGES


def settings_of(layers: list[str], more: dict[str, Any]) -> Any:
    own = {"target_modules": layers, "r": 4}
    if "loha" in more:
        return peft.LoHaConfig(**own, alpha=6, **more["loha"])
    if "lokr" in more:
        return peft.LoKrConfig(**own, alpha=6, **more["lokr"])
    return peft.LoraConfig(**own, lora_alpha=6, **more)


def shaken(model: nn.Module, named: str) -> None:
    """Move what trains away from where it starts."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad or any(each in name for each in named.split()):
                parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if "modules_to_save.default" in name and buffer.is_floating_point():
                buffer.add_(torch.rand_like(buffer))


def run(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(x)


def close(found: Tensor, expected: Tensor, base: Tensor) -> None:
    assert not torch.allclose(expected, base, rtol=1e-3, atol=1e-3), "the adapter has no effect"
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def saved_by_peft(base: nn.Module, config: Any, folder: Path) -> nn.Module:
    model = peft.get_peft_model(copy.deepcopy(base), config)
    shaken(model, "")
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(("make", "layers", "more"), THEIRS, ids=lambda each: getattr(each, "__name__", str(each)[:40]))
def test_what_peft_saved_gives_the_same_output_and_goes_back(
    make: Make, layers: list[str], more: dict[str, Any], tmp_path: Path
) -> None:
    base, x = make().eval(), example(make)
    before = run(base, x)
    expected = run(saved_by_peft(base, settings_of(layers, more), tmp_path / "theirs"), x)
    ours = copy.deepcopy(base)
    vl.load_peft(ours, tmp_path / "theirs")
    close(run(ours, x), expected, before)
    # Into our file, and from there.
    vl.save_adapter(ours, tmp_path / "a.safetensors")
    fresh = copy.deepcopy(base)
    vl.load_adapter(fresh, tmp_path / "a.safetensors")
    assert torch.equal(run(fresh, x), run(ours, x))
    if more.get("bias", "none") != "none":
        with pytest.raises(vl.InputError, match="is a parameter that trains by itself; PEFT saves whole modules"):
            vl.save_peft(ours, tmp_path / "back")
        return
    vl.save_peft(ours, tmp_path / "back")
    back = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "back")
    close(run(back, x), expected, before)


# Model, its layers as we name them, settings of ours.
OURS: list[tuple[Make, list[str], dict[str, Any]]] = [
    (vit, VIT_LAYERS, {"rank_pattern": {"attn.qkv": 2}, "alpha_pattern": {"mlp.fc1": 2.5}, "unfreeze": ["head"]}),
    (vit, ["attn.qkv", "mlp.fc1"], {"method": "dora"}),
    (resnet, RESNET_LAYERS, {"method": "rslora", "batchnorm": "train", "unfreeze": ["fc"]}),
    (resnet, RESNET_LAYERS, {"method": "lokr", "unfreeze": ["fc"]}),
    (convnext, CONVNEXT_LAYERS, {"method": "loha", "unfreeze": ["head.fc"]}),
    (convnext, CONVNEXT_LAYERS, {"method": "dora"}),
    (attention, ATTENTION_WITH_OUT, {"unfreeze": ["norm", "head"]}),
    # "proj" is the end of other layers' names, too.
    (vit, ["patch_embed.proj", "blocks.0.attn.proj"], {}),
]


@pytest.mark.parametrize(("make", "layers", "more"), OURS, ids=lambda each: getattr(each, "__name__", str(each)[:40]))
def test_what_is_saved_for_peft_gives_the_same_output_there(
    make: Make, layers: list[str], more: dict[str, Any], tmp_path: Path
) -> None:
    base, x = make().eval(), example(make)
    before = run(base, x)
    model = copy.deepcopy(base)
    vl.attach(model, vl.LoRAConfig(rank=4, alpha=6, targets=layers, **more))
    shaken(model, "adapters")
    if more.get("batchnorm") == "train":
        model.train()(x)
    expected = run(model, x)
    vl.save_peft(model, tmp_path / "ours")
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "ours")
    close(run(theirs, x), expected, before)
    again = copy.deepcopy(base)
    vl.load_peft(again, tmp_path / "ours")
    close(run(again, x), expected, before)


def test_a_name_that_is_the_end_of_another_is_not_confused(tmp_path: Path) -> None:
    base, x = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4))), torch.randn(2, 4)
    model = copy.deepcopy(base)
    vl.attach(model, vl.LoRAConfig(rank=2, targets=["re:0"]))
    perturb(model, 0.5)
    vl.save_peft(model, tmp_path / "ours")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "ours")
    assert sum("lora_A" in name for name, _ in theirs.named_parameters()) == 1
    torch.testing.assert_close(run(theirs, x), run(model, x))


def test_dropout_is_left_out_with_a_warning(tmp_path: Path) -> None:
    base = nn.Sequential(nn.Linear(4, 4))
    saved_by_peft(base, peft.LoraConfig(target_modules=["0"], lora_dropout=0.1), tmp_path / "theirs")
    with pytest.warns(UserWarning, match=r"lora_dropout=0\.1 is left out"):
        vl.load_peft(base, tmp_path / "theirs")


def unchanged(model: nn.Module, act: Callable[[], object]) -> str:
    """The one line that an action is refused with; the model is as it was."""
    before = copy.deepcopy(model.state_dict()), [type(module) for module in model.modules()]
    with pytest.raises(vl.InputError) as error:
        act()
    assert [type(module) for module in model.modules()] == before[1] and list(model.state_dict()) == list(before[0])
    assert all(torch.equal(value, before[0][key]) for key, value in model.state_dict().items())
    assert "\n" not in str(error.value)
    return str(error.value)


UNSAVED: list[tuple[Make, dict[str, Any], str]] = [
    (vit, {"targets": ["attn.qkv:q,v"]}, "PEFT adapts a fused projection as a whole, and this adapter its q,v only"),
    (convnext, {"targets": ["conv_dw"]}, "PEFT's update of a convolution in"),
    (lambda: nn.Sequential(nn.Conv2d(4, 4, 3, dilation=2)), {}, "PEFT drops its dilation ((2, 2))"),
    (lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")), {}, "drops its padding_mode"),
    (lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 3)), {}, "PEFT does not adapt ConvTranspose2d"),
    (lambda: nn.Sequential(nn.Conv3d(4, 4, 3)), {"method": "lokr"}, "PEFT has no lokr for Conv3d"),
    (lambda: nn.Sequential(nn.Conv1d(4, 4, 3)), {"method": "lokr"}, "PEFT orders the product of a Conv1d otherwise"),
    (attention, {"targets": ["block.attn"]}, "adapts in_proj_weight and out_proj of nn.MultiheadAttention together"),
    (attention, {"targets": ATTENTION_WITH_OUT, "method": "dora"}, "PEFT has no dora for nn.MultiheadAttention"),
    (lambda: Attend(kdim=12, vdim=12), {}, "PEFT wants q, k and v of nn.MultiheadAttention in one weight"),
    (vit, {"targets": ["attn.qkv"], "unfreeze": ["pos_embed"]}, "'pos_embed' is a parameter that trains by itself"),
    (
        vit,
        {"targets": ["attn.qkv"], "unfreeze": ["re:blocks.0.norm1", "re:norm"]},
        "PEFT would save 'patch_embed.norm' along with 'norm'",
    ),
    (vit, {"targets": ["re:blocks.0.attn.qkv"], "unfreeze": ["re:blocks"]}, "unfrozen and trains fully"),
]


@pytest.mark.parametrize(("make", "config", "expected"), UNSAVED, ids=[expected[:50] for *_, expected in UNSAVED])
def test_what_peft_can_not_express_is_refused(
    make: Make, config: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    model = make()

    def save() -> None:
        vl.attach(model, vl.LoRAConfig(rank=2, **config))
        vl.save_peft(model, tmp_path / "ours")

    with pytest.raises(vl.InputError) as error:
        save()
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_not_replaced(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    vl.attach(model)
    (tmp_path / "notes.txt").write_text("mine")
    assert "is there already" in unchanged(model, lambda: vl.save_peft(model, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


EDITS: list[tuple[dict[str, Any], str]] = [
    ({"peft_type": "IA3"}, "peft_type is 'IA3', and what can be read is LORA, LOHA, LOKR"),
    ({"fan_in_fan_out": True}, "asks for fan_in_fan_out=True, which can't be expressed here"),
    ({"lora_bias": True, "use_qalora": True}, "asks for lora_bias=True, use_qalora=True"),
    ({"something_new": {"a": 1}}, "asks for something_new={'a': 1}"),
    ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4', by which PEFT changes the frozen"),
    ({"r": "8"}, "r is '8', and should be a number"),
    ({"lora_alpha": 0}, "alpha is 0.0; give a finite number other than 0"),
    ({"alpha_pattern": {"(": 3}}, "'(' of alpha_pattern is no regular expression"),
    ({"rank_pattern": [1]}, "rank_pattern is [1], and should name layers"),
    ({"modules_to_save": "head"}, "modules_to_save is 'head', and should be a list of names"),
    ({"peft_type": "LOKR", "alpha": 8, "decompose_factor": 4}, "decompose_factor is 4"),
    ({"use_dora": True}, "the tensors of 0 are no dora: there is no lora_magnitude_vector"),
]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peft") / "theirs"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saved_by_peft(net(), peft.LoraConfig(target_modules=["0"], r=2, modules_to_save=["1"]), folder)
    return folder


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1))


def copied(theirs: Path, to: Path) -> Path:
    to.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (to / name).write_bytes((theirs / name).read_bytes())
    return to


@pytest.mark.parametrize(("edit", "expected"), EDITS, ids=lambda each: str(each)[:40])
def test_settings_that_can_not_be_expressed_are_refused(
    edit: dict[str, Any], expected: str, theirs: Path, tmp_path: Path
) -> None:
    folder, model = copied(theirs, tmp_path / "edited"), net()
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | edit))
    assert expected in unchanged(model, lambda: vl.load_peft(model, folder))


Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]
A, B, SAVED = (f"base_model.model.{key}.weight" for key in ("0.lora_A", "0.lora_B", "1"))
TENSORS: list[tuple[str, Change, str]] = [
    (
        "a layer that is not there",
        lambda t: {**t, "base_model.model.9.lora_A.weight": t[A]},
        "'9', which the model has",
    ),
    (
        "half of a pair",
        lambda t: {key: t[key] for key in (A, SAVED)},
        "the tensors of 0 are no lora: there is no lora_B",
    ),
    ("another shape", lambda t: {**t, A: t[A][:, :2]}, "0.weight.lora_A is of shape (2, 2, 3, 3), and should be"),
    ("no dimensions", lambda t: {**t, B: torch.tensor(1.0)}, "the tensors of 0 are no lora: Dimension out of range"),
    ("another head", lambda t: {**t, SAVED: t[SAVED][:4]}, "'1.weight' is (4, 4, 1, 1) in the file and (5, 4, 1, 1)"),
    ("half of a head", lambda t: {key: t[key] for key in (A, B, SAVED)}, "1.bias of the unfrozen 1 is missing"),
    ("what nobody named", lambda t: {**t, "base_model.model.2.weight": t[A]}, "'2.weight' is of no adapter, and of no"),
    ("another prefix", lambda t: {**t, "unet.x": t[A]}, "'unet.x' does not start with 'base_model.model.'"),
]


@pytest.mark.parametrize(("change", "expected"), [each[1:] for each in TENSORS], ids=[each[0] for each in TENSORS])
def test_tensors_that_do_not_fit_are_refused(change: Change, expected: str, theirs: Path, tmp_path: Path) -> None:
    folder, model = copied(theirs, tmp_path / "edited"), net()
    path = folder / "adapter_model.safetensors"
    save_file({key: tensor.clone().contiguous() for key, tensor in change(load_file(path)).items()}, path)
    assert expected in unchanged(model, lambda: vl.load_peft(model, folder))


def test_folders_that_are_none_of_pefts_are_refused(theirs: Path, tmp_path: Path) -> None:
    model = net()
    assert "holds no adapter_config.json" in unchanged(model, lambda: vl.load_peft(model, tmp_path))
    folder = copied(theirs, tmp_path / "cut")
    (folder / "adapter_model.safetensors").write_bytes(b"12345")
    assert "not a whole safetensors file" in unchanged(model, lambda: vl.load_peft(model, folder))
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").touch()
    assert "holds its tensors as a pickle" in unchanged(model, lambda: vl.load_peft(model, folder))
    (folder / "adapter_config.json").write_text("{")
    assert "not JSON" in unchanged(model, lambda: vl.load_peft(model, folder))


DROPPED: list[tuple[Make, Any, str]] = [
    (lambda: nn.Sequential(nn.Conv2d(4, 4, 3, dilation=2)), peft.LoraConfig, "PEFT drops its dilation"),
    (
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)),
        peft.LoraConfig,
        "a convolution in 2 groups has another shape",
    ),
]


@pytest.mark.parametrize(("make", "kind", "expected"), DROPPED, ids=["dilation", "groups"])
def test_layers_that_peft_computes_otherwise_are_refused(make: Make, kind: Any, expected: str, tmp_path: Path) -> None:
    model = make()
    saved_by_peft(model, kind(target_modules=["0"]), tmp_path / "theirs")
    assert expected in unchanged(model, lambda: vl.load_peft(model, tmp_path / "theirs"))
