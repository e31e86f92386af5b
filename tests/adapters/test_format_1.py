"""An adapter's file of format 1, as the code of that time wrote it, loads for ever."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import visionlora as vl
from helpers.format_1 import FOLDER, Small, small_images

FILE = FOLDER / "small" / "adapter.safetensors"
OUTPUTS = load_file(FOLDER / "small" / "outputs.safetensors")


@pytest.fixture
def base() -> Small:
    model = Small()
    model.load_state_dict(load_file(FOLDER / "small" / "base.safetensors"))
    return model.eval()


def test_the_file_is_of_format_1() -> None:
    with safe_open(FILE, framework="pt") as file:
        metadata = file.metadata()
        keys = set(file.keys())
    assert metadata["format_version"] == "1"
    assert {"rank": 2, "alpha": 4.0, "rslora": True, "parts": "q,v"} in json.loads(metadata["layers"]).values()
    assert {"attn.qkv.weight.lora_A", "attn.qkv.weight.lora_B", "bn.running_mean", "head.bias"} <= keys


def test_it_loads_and_gives_what_it_gave(base: Small) -> None:
    report = vl.load_adapter(base, FILE)
    assert {layer.name: layer.rank for layer in report.adapted} == {
        "conv": 2,
        "attn.qkv:q,v": 2,
        "attn.proj": 2,
        "pool.in_proj_weight": 2,
        "fc": 3,
    }
    with torch.no_grad():
        torch.testing.assert_close(base(small_images()), OUTPUTS["adapted"])
        with vl.disabled(base):
            torch.testing.assert_close(base(small_images()), OUTPUTS["base"])
        vl.merge(base)
        torch.testing.assert_close(base(small_images()), OUTPUTS["adapted"])


def test_an_entry_that_contradicts_its_method_is_refused(base: Small, tmp_path: Path) -> None:
    with safe_open(FILE, framework="pt") as file:
        metadata = file.metadata()
    for value in ("1", "false"):
        path = tmp_path / "damaged.safetensors"
        layers = metadata["layers"].replace('"rslora": true', f'"rslora": {value}', 1)
        save_file(load_file(FILE), path, metadata={**metadata, "layers": layers})
        with pytest.raises(vl.InputError, match="header is damaged .rslora of conv.weight is"):
            vl.load_adapter(base, path)


def test_its_header_is_read() -> None:
    header = vl.read_header(FILE)
    assert (header.classes, header.unfrozen, header.extra) == (["a", "b", "c"], ["head"], {"note": "format 1"})
    assert header.config == vl.LoRAConfig(
        rank=2,
        alpha=4,
        targets=["conv", "attn.qkv:q,v", "attn.proj", "pool", "fc"],
        unfreeze=["head"],
        rank_pattern={"fc": 3},
        alpha_pattern={"fc": 6},
        method="rslora",
        batchnorm="recalibrate",
    )
