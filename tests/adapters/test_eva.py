"""EVA: A holds the directions of a layer's inputs, ranks go where they explain most, and the model stays the base."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import MODELS, perturb


def captured(layer: nn.Module, model: nn.Module, batches: list[Tensor]) -> Tensor:
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        for batch in batches:
            model(batch)
    handle.remove()
    return torch.cat(seen)


CONVS = [
    lambda: nn.Conv2d(3, 6, 3, stride=2, padding=1),
    lambda: nn.Conv2d(3, 6, 3, dilation=2, padding=2, padding_mode="reflect"),
    lambda: nn.Conv2d(3, 6, (1, 3), padding="same"),
]


@pytest.mark.parametrize("make", CONVS)
def test_a_convolutions_a_holds_the_singular_vectors_of_its_patches(make: Callable[[], nn.Conv2d]) -> None:
    model, batches = nn.Sequential(make()).double(), [torch.randn(4, 3, 8, 8).double() + 1 for _ in range(2)]
    layer = model[0]
    x = captured(layer, model, batches)
    padding = layer.padding
    if layer.padding_mode == "reflect" or padding == "same":
        mode = "constant" if padding == "same" else "reflect"
        x, padding = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode), 0
    patches = F.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride).transpose(1, 2).flatten(0, 1)
    vl.attach(model, vl.LoRAConfig(rank=3))
    started = vl.start_from_data(model, batches)
    A = layer.adapters["default"]["weight"].lora_A.detach().flatten(1)
    _, sizes, right = torch.linalg.svd(patches, full_matrices=False)
    torch.testing.assert_close((A @ right[:3].T).abs(), torch.eye(3).double(), atol=1e-6, rtol=0)
    explained = (sizes[:3].square().sum() / sizes.square().sum()).item()
    assert started.layers[0].explained == pytest.approx(explained) and f"{100 * explained:.1f}%" in str(started)


def test_groups_share_the_directions_of_all_their_channels() -> None:
    model, x = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2)).double(), torch.randn(3, 4, 5, 5).double()
    vl.attach(model, vl.LoRAConfig(rank=1))
    vl.start_from_data(model, [x])
    rows = x.view(3, 2, 2, 25).permute(0, 1, 3, 2).reshape(-1, 2)
    first = torch.linalg.svd(rows, full_matrices=False)[2][0]
    A = model[0].adapters["default"]["weight"].lora_A.detach().flatten()
    assert abs(A @ first).item() == pytest.approx(1)


def test_ranks_go_where_the_inputs_are_spread_and_their_sum_stays() -> None:
    torch.manual_seed(0)
    flat = nn.Linear(16, 16, bias=False)
    with torch.no_grad():
        flat.weight.copy_(torch.outer(torch.randn(16), torch.randn(16)))  # what follows sees one direction
    model, x = nn.Sequential(flat, nn.Linear(16, 8)), torch.randn(64, 16)
    vl.attach(model, vl.LoRAConfig(rank=4, alpha=8))
    before = model(x).detach()
    first, second = vl.start_from_data(model, [(x, "labels")]).layers
    assert (first.rank, second.rank) == (7, 1) and second.explained == pytest.approx(1, abs=1e-5)
    assert torch.equal(model(x), before)
    for layer, rank in zip(model, (7, 1), strict=True):
        lora = layer.adapters["default"]["weight"]
        assert lora.rank == rank and lora.scale == 2 and lora.lora_A.requires_grad
    same = nn.Sequential(nn.Linear(16, 8))
    vl.attach(same, vl.LoRAConfig(rank=4))
    assert vl.start_from_data(same, [x], rho=1).layers[0].rank == 4


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "lora_fa"])
def test_it_trains_and_is_saved_with_every_lora(method: str, tmp_path: Path) -> None:
    def resnet() -> nn.Module:
        torch.manual_seed(0)
        return timm.create_model("test_resnet", num_classes=3, zero_init_last=False).eval()

    model, x = resnet(), torch.randn(4, 3, 32, 32)
    expected = model(x)
    vl.attach(model, vl.LoRAConfig(rank=3, method=method))
    started = vl.start_from_data(model, [x])
    assert sum(each.rank for each in started.layers) == sum(each.before for each in started.layers)
    torch.testing.assert_close(model(x), expected)
    perturb(model, 0.05)
    vl.save_adapter(model, tmp_path / "a.safetensors")
    fresh = resnet()
    vl.load_adapter(fresh, tmp_path / "a.safetensors")
    with torch.no_grad():
        assert torch.equal(fresh(x), model(x))


def test_layers_that_are_not_called_start_as_before() -> None:
    case = next(case for case in MODELS if case.name == "timm_beit_base_patch16_224")
    model = case.make().eval()
    vl.attach(model, vl.LoRAConfig(rank=2, targets=["attn.qkv", "mlp.fc1"]))
    drawn = {name: p.clone() for name, p in model.named_parameters() if "qkv" in name and "lora_A" in name}
    started = vl.start_from_data(model, [torch.randn(2, 3, case.size, case.size)])
    assert {each.name.rpartition(".")[2] for each in started.layers if each.explained is None} == {"qkv"}
    assert "saw no input of their own and start as before" in str(started)
    assert drawn and all(torch.equal(model.get_parameter(name), value) for name, value in drawn.items())


def trained() -> nn.Module:
    model = attached()
    perturb(model)
    return model


def attached(**config: Any) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4))
    vl.attach(model, vl.LoRAConfig(rank=2, **config))
    return model


X = [torch.randn(3, 4)]
REFUSED: list[tuple[Callable[[], nn.Module], Any, dict[str, Any], str]] = [
    (attached, [], {}, "the loader is empty"),
    (attached, [torch.full((2, 4), float("inf"))], {}, "the inputs of '0' are not finite"),
    (attached, X, {"rho": 0.5}, "rho is 0.5; give a number of at least 1"),
    (attached, X, {"name": "other"}, "no adapter 'other' was attached"),
    (trained, X, {}, "'default' has been trained already"),
    (lambda: attached(method="loha"), X, {}, "'0' has a LoHa that does not start at random"),
    (lambda: attached(init="pissa"), X, {}, "'0' has a LoRA that does not start at random"),
]


@pytest.mark.parametrize(("make", "loader", "more", "expected"), REFUSED, ids=[each[3][:30] for each in REFUSED])
def test_what_can_not_start_from_data_is_refused(make: Any, loader: Any, more: dict[str, Any], expected: str) -> None:
    model = make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(vl.InputError) as error:
        vl.start_from_data(model, loader, **more)
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
