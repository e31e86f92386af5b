"""The same base in another precision, or for another size of image, is no other base; what was not checked is said."""

import copy
import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import visionlora as vl
from helpers.cases import perturb

VIT = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def vit(size: int = 32) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", img_size=size, **VIT).eval()


@pytest.fixture
def base() -> nn.Module:
    return vit()


def made_on(base: nn.Module, path: Path) -> nn.Module:
    model = copy.deepcopy(base)
    vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=["head"]))
    perturb(model, 0.1)
    vl.save_adapter(model, path)
    return model


def as_older(path: Path) -> None:
    """What a file of format 1 lacks: the fingerprints of the rounded base."""
    with safe_open(path, "pt") as file:
        fields = {key: value for key, value in file.metadata().items() if key not in ("rounded", "sha256")}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(tensors, path, fields)


def factors(model: nn.Module) -> list[torch.Tensor]:
    return [p.double() for name, p in model.named_parameters() if ".lora_" in name]


CAN_BE_CHECKED = [
    (made, other)
    for made in DTYPES
    for other in DTYPES
    # Rounding once more in another way: neither can be had from the other.
    if made != other and {made, other} != {torch.bfloat16, torch.float16}
]


@pytest.mark.parametrize(("made", "other"), CAN_BE_CHECKED, ids=str)
def test_another_precision_of_the_same_base_is_loaded_and_said(
    base: nn.Module, tmp_path: Path, made: torch.dtype, other: torch.dtype
) -> None:
    # What is exact in float32 need not be so in float16, and was made from it.
    model = made_on(copy.deepcopy(base).to(made), tmp_path / "a.safetensors")
    fresh = copy.deepcopy(base).to(other)
    report = vl.load_adapter(fresh, tmp_path / "a.safetensors")
    number = len([t for n, t in base.state_dict().items() if not n.startswith("head.")])
    name = str(other).removeprefix("torch.")
    assert report.base.startswith(f"{number} tensors are stored in {name}") and report.base in str(report)
    assert all(torch.equal(a.float(), b.float()) for a, b in zip(factors(fresh), factors(model), strict=True))


@pytest.mark.parametrize(("made", "other"), CAN_BE_CHECKED, ids=str)
def test_another_base_is_refused_in_any_precision(
    base: nn.Module, tmp_path: Path, made: torch.dtype, other: torch.dtype
) -> None:
    made_on(copy.deepcopy(base).to(made), tmp_path / "a.safetensors")
    with torch.no_grad():
        base.blocks[1].mlp.fc1.weight[3, 2] += 0.5
    with pytest.raises(vl.InputError, match=r"1 of \d+ frozen tensors differ, 'blocks.1.mlp.fc1.weight' first"):
        vl.load_adapter(base.to(other), tmp_path / "a.safetensors")
    assert not [name for name, _ in base.named_modules() if "adapters" in name]


@pytest.mark.parametrize("lower", DTYPES[2:])
def test_what_an_older_file_cannot_tell_is_refused_with_the_way_out(
    base: nn.Module, tmp_path: Path, lower: torch.dtype
) -> None:
    path = tmp_path / "a.safetensors"
    model = made_on(base, path)
    as_older(path)
    kind = str(lower).removeprefix("torch.")
    fresh = copy.deepcopy(base).to(lower)
    with pytest.raises(
        vl.InputError, match=rf"stored in {kind} and can't be compared.*in float32.*model.to\(torch\.{kind}"
    ):
        vl.load_adapter(fresh, path)
    vl.load_adapter(base, path)
    base.to(lower)
    expected = copy.deepcopy(model).to(lower)
    x = torch.randn(2, 3, 32, 32, dtype=lower)
    assert torch.equal(base(x), expected(x))
    report = vl.load_adapter(fresh, path, strict_base=False)
    assert "not the one that the adapter was made on" in report.base and "strict_base=False" in str(report)
    assert torch.equal(fresh(x), expected(x))


def test_an_older_file_made_in_fewer_bits_is_checked_by_rounding(base: nn.Module, tmp_path: Path) -> None:
    made_on(copy.deepcopy(base).bfloat16(), tmp_path / "a.safetensors")
    as_older(tmp_path / "a.safetensors")
    assert "are stored in float32" in vl.load_adapter(copy.deepcopy(base), tmp_path / "a.safetensors").base
    with torch.no_grad():
        base.norm.weight += 1
    with pytest.raises(vl.InputError, match="'norm.weight' first"):
        vl.load_adapter(base, tmp_path / "a.safetensors")


def test_two_roundings_cannot_be_compared(base: nn.Module, tmp_path: Path) -> None:
    made_on(copy.deepcopy(base).bfloat16(), tmp_path / "a.safetensors")
    with pytest.raises(vl.InputError, match="can't be compared"):
        vl.load_adapter(base.half(), tmp_path / "a.safetensors")


def test_the_same_base_has_no_remark(base: nn.Module, tmp_path: Path) -> None:
    made_on(base, tmp_path / "a.safetensors")
    report = vl.load_adapter(base, tmp_path / "a.safetensors")
    assert report.base == "" and "base:" not in str(report)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resized_position_embedding_is_loaded_and_said(base: nn.Module, tmp_path: Path, dtype: torch.dtype) -> None:
    made_on(base, tmp_path / "a.safetensors")
    larger = vit(48)
    state = base.state_dict()
    state["pos_embed"] = timm.layers.resample_abs_pos_embed(state["pos_embed"], (6, 6))
    larger.load_state_dict(state)
    report = vl.load_adapter(larger.to(dtype), tmp_path / "a.safetensors")
    assert "pos_embed differ, as for another size of image; they could not be checked" in report.base
    assert ("stored in bfloat16" in report.base) == (dtype == torch.bfloat16)


def test_a_resized_position_embedding_excuses_no_other_difference(base: nn.Module, tmp_path: Path) -> None:
    made_on(base, tmp_path / "a.safetensors")
    with pytest.raises(vl.InputError, match="frozen tensors differ, 'cls_token' first"):
        vl.load_adapter(vit(48), tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("swinv2_tiny_window8_256", (32, 64)), ("levit_128s", (64, 96)), ("samvit_base_patch16", (64, 96))],
)
def test_tables_of_relative_positions_are_position_embeddings(
    name: str, sizes: tuple[int, int], tmp_path: Path
) -> None:
    small = {"depth": 1, "embed_dim": 32, "num_heads": 2, "global_attn_indexes": (0,)} if "sam" in name else {}
    small = {"embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4} if "swin" in name else small
    base, other = (timm.create_model(name, num_classes=3, img_size=size, **small) for size in sizes)
    made_on(base, tmp_path / "a.safetensors")
    there = {key: tensor for key, tensor in base.state_dict().items() if other.state_dict()[key].shape == tensor.shape}
    other.load_state_dict(there, strict=False)
    vl.load_adapter(other, tmp_path / "a.safetensors")


def test_whoever_knows_better_may_load_onto_another_base(base: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    model = made_on(base, path)
    with torch.no_grad():
        base.norm.weight += 1
    report = vl.load_adapter(base, path, strict_base=False)
    assert "1 differ and 0 are absent, 'norm.weight' first (strict_base=False)" in report.base
    assert report.base in str(report)
    assert all(torch.equal(a, b) for a, b in zip(factors(base), factors(model), strict=True))
    with pytest.raises(vl.InputError, match="no such layer"):
        vl.load_adapter(nn.Sequential(nn.Linear(3, 3)), path, strict_base=False)


def test_a_damaged_field_of_roundings_is_one_line(base: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    made_on(base, path)
    with safe_open(path, "pt") as file:
        fields = {**file.metadata(), "rounded": json.dumps([1])}
        del fields["sha256"]
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(tensors, path, fields)
    with pytest.raises(vl.InputError, match="header is damaged"):
        vl.load_adapter(base, path)
