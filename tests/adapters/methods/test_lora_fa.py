"""LoRA-FA: the gradients of LoRA's B, A as it was drawn, and inputs that are not kept."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import visionlora as vl
from helpers.dense_oracle import saved_storages

LAYERS = {
    "linear": (lambda: nn.Linear(24, 10), (2, 7, 24)),
    "no bias": (lambda: nn.Linear(24, 10, bias=False), (5, 24)),
    "wide": (lambda: nn.Linear(520, 8), (600, 520)),
    "conv1d": (lambda: nn.Conv1d(24, 10, 3, padding=1), (2, 24, 9)),
    "conv2d": (lambda: nn.Conv2d(24, 10, 3, stride=2, padding=1), (2, 24, 9, 9)),
    "pointwise": (lambda: nn.Conv2d(24, 10, 1, stride=2), (2, 24, 9, 9)),
    "same": (lambda: nn.Conv2d(24, 10, 4, padding="same"), (2, 24, 9, 9)),
    "grouped": (lambda: nn.Conv2d(24, 10, 3, groups=2, bias=False), (2, 24, 9, 9)),
    "depthwise": (lambda: nn.Conv2d(24, 24, 3, groups=24), (2, 24, 9, 9)),
    "conv3d": (lambda: nn.Conv3d(24, 10, 2), (1, 24, 3, 4, 5)),
}


def model_of(layer: nn.Module, method: str = "lora_fa") -> nn.Module:
    """Two layers, so that the first one's output needs a gradient."""
    model = nn.Sequential(layer, nn.GELU(), copy.deepcopy(layer) if layer.weight.shape[0] == 24 else nn.Identity())
    vl.attach(model, vl.LoRAConfig(rank=2, method=method))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return model


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    model.zero_grad()
    out = model(x)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)).sum().backward()
    assert x.grad is not None
    return {"x": x.grad} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_the_gradients_are_those_of_the_dense_weight(name: str, channels_last: bool) -> None:
    make, shape = LAYERS[name]
    model, x = model_of(make().double()), torch.randn(shape).double()
    if channels_last and len(shape) == 4:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    found = gradients(model, x)
    expected = gradients(vl.set_route(model, "reference"), x)
    assert set(found) == set(expected) and any("lora_B" in key for key in found)
    assert not any("lora_A" in key for key in found)
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient)


@pytest.mark.parametrize("name", ["linear", "conv2d", "grouped"])
def test_of_the_input_only_r_channels_are_kept(name: str) -> None:
    make, shape = LAYERS[name]
    layer, x = make(), torch.randn(shape).requires_grad_()
    model = nn.Sequential(layer)
    vl.attach(model, vl.LoRAConfig(rank=2, method="lora_fa"))
    own = [*model.parameters(), *model.buffers(), layer.adapters["default"]["weight"].lora_A]
    kept = saved_storages(lambda: model(x), but=own)
    out = model(x)
    assert x.untyped_storage().data_ptr() not in kept
    groups = getattr(layer, "groups", 1)
    scaled_b = 2 * len(layer.weight)
    assert sum(kept.values()) <= 4 * (2 * groups * out.numel() // len(layer.weight) + scaled_b) + 8


def test_a_folded_batchnorm_and_autocast_are_respected() -> None:
    layers = (nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 12, 1))
    model, x = nn.Sequential(*layers).eval(), torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        model[1].running_var.uniform_(0.5, 2)
    vl.attach(model, vl.LoRAConfig(rank=1, method="lora_fa"))
    nn.init.normal_(model[0].adapters["default"]["weight"].lora_B)
    expected = gradients(model, x)
    assert vl.fold_batchnorm(model, x)
    for key, gradient in gradients(model, x).items():
        torch.testing.assert_close(gradient, expected[key], rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)
    out.float().square().sum().backward()
    assert out.dtype == torch.bfloat16 and model[0].adapters["default"]["weight"].lora_B.grad.dtype == torch.float32


def test_a_stays_as_drawn_and_is_in_the_file(tmp_path: Path) -> None:
    model = model_of(nn.Linear(6, 24))
    report = vl.attach(nn.Sequential(nn.Linear(6, 24)), vl.LoRAConfig(rank=2, method="lora_fa"))
    assert report.adapter_parameters == 2 * 24 and report.file_bytes == 4 * 2 * (24 + 6)
    drawn = model[0].adapters["default"]["weight"].lora_A.clone()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 0.1)
    model[0](torch.randn(3, 6)).square().sum().backward()
    optimizer.step()
    assert torch.equal(model[0].adapters["default"]["weight"].lora_A, drawn)
    vl.save_adapter(model, tmp_path / "a.safetensors")
    assert torch.equal(load_file(tmp_path / "a.safetensors")["0.weight.lora_A"], drawn)
