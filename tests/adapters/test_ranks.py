"""How large an adapter is: never larger than its layer, within a budget, and ranks where the loss can fall most."""

import copy
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import METHODS, perturb
from visionlora.adapters.budget import bytes_of
from visionlora.adapters.layer import adapted_layers, methods_of
from visionlora.adapters.spread import Spread

RANKED = [method for method in METHODS if method not in ("ia3", "lokr")]  # lokr's size has little to do with its rank


@pytest.mark.parametrize("method", RANKED)
def test_no_adapter_is_larger_than_its_layer_and_one_rank_more_would_be(method: str) -> None:
    model = nn.Sequential(nn.Linear(30, 8), nn.Conv2d(4, 12, 3), nn.Conv2d(12, 12, 3, groups=12), nn.Linear(64, 64))
    asked = 16 if method == "loha" else 25
    report = vl.attach(model, vl.LoRAConfig(rank=asked, alpha=50, method=method))
    assert report.adapted[-1].rank == asked and not report.adapted[-1].note
    for row in report.adapted[:-1]:
        layer = model.get_submodule(row.path)
        adapter = methods_of(layer, "default")["weight"]
        assert adapter.numbers <= layer.weight.numel() and row.rank == adapter.rank < asked
        assert type(adapter).build(layer._parameters["weight"], row.rank + 1, 1.0).numbers > layer.weight.numel()
        assert row.note == f"rank {asked} would be larger than the layer" and row.note in str(report)
        # Its update has the scale that was asked for.
        divisor = type(adapter).divisor
        assert adapter.alpha / divisor(row.rank) == pytest.approx(50 / divisor(asked))


def test_a_part_of_a_weight_counts_as_a_layer() -> None:
    model = timm.create_model("test_vit", num_classes=3)
    vl.attach(model, vl.LoRAConfig(rank=60, targets=["blocks.0.attn.qkv:q", "blocks.1.attn.qkv"]))
    ranks = [methods_of(layer, "default")["weight"].rank for _, layer in adapted_layers(model)]
    assert ranks == [32, 48]  # 64 x 64 and 192 x 64 numbers


@pytest.mark.parametrize(("text", "expected"), [("2MB", 2_000_000), ("0.5 kB", 500), ("64KiB", 65536), ("7B", 7)])
def test_sizes(text: str, expected: int) -> None:
    assert bytes_of(text) == expected


@pytest.mark.parametrize("method", ["lora", "tucker", "dora"])
@pytest.mark.parametrize("init", ["kaiming", "pissa"])
def test_the_largest_rank_that_keeps_the_budget(method: str, init: str) -> None:
    if init == "pissa" and method != "lora":
        pytest.skip("pissa is LoRA's alone")
    model = timm.create_model("test_resnet", num_classes=3)
    settings: dict[str, Any] = {"unfreeze": ["fc"], "method": method, "init": init}
    budget = 200_000
    report = vl.attach(model, vl.LoRAConfig(rank="auto", budget=f"{budget}B", **settings))
    rank = max(layer.rank or 0 for layer in report.adapted)
    assert report.file_bytes <= budget
    vl.detach(model)
    assert vl.attach(model, vl.LoRAConfig(rank=rank, **settings)).file_bytes == report.file_bytes
    vl.detach(model)
    assert vl.attach(model, vl.LoRAConfig(rank=rank + 1, **settings)).file_bytes > budget


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": "auto"}, "rank is 'auto'; rank='auto' and a budget such as '2MB' go together"),
        ({"budget": "2MB"}, "budget is '2MB'; rank='auto' and a budget such as '2MB' go together"),
        ({"rank": "auto", "budget": "2 megs"}, "budget is '2 megs'; give a size such as '2MB' or '500kB'"),
        ({"rank": "auto", "budget": "2MB", "rank_pattern": {"fc": 2}}, "rank is 'auto', and rank_pattern gives ranks"),
        ({"rank": "auto", "budget": "2MB", "method": "ia3"}, "rank is 'auto', and ia3 has no rank"),
        ({"rank": "auto", "budget": "1kB"}, r"budget is '1kB', and rank 1 everywhere takes [\d.]+ kB; give more"),
        ({"rank": "many"}, "rank is 'many'; give a whole number"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    model = timm.create_model("test_resnet", num_classes=3)
    before = [type(module) for module in model.modules()]
    with pytest.raises(vl.InputError, match=message) as error:
        vl.attach(model, vl.LoRAConfig(**settings))
    assert "\n" not in str(error.value) and [type(module) for module in model.modules()] == before


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(6, 3, 32, 32), torch.randint(3, (6,))) for _ in range(count)]


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def net() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=3, zero_init_last=False).double().eval()


def spread(model: nn.Module, **settings: Any) -> Spread:
    data = [(x.double(), y) for x, y in batches()]
    return vl.spread_ranks(model, data, loss, **settings)


@pytest.mark.parametrize("method", ["lora", "dora", "lora_fa"])
def test_ranks_follow_the_gradients_of_the_plain_model_and_keep_the_budget(method: str) -> None:
    model, plain = net(), net()
    for x, y in batches():
        loss(plain, (x.double(), y)).backward()
    gradients = {name.removesuffix(".weight"): p.grad for name, p in plain.named_parameters() if p.grad is not None}
    before = vl.attach(model, vl.LoRAConfig(rank=4, method=method, unfreeze=["fc"]))
    found = spread(model)
    sizes = {row.name: torch.linalg.svdvals(gradients[row.name].flatten(1)).square() for row in found.layers}
    whole = sum(float(size.sum()) for size in sizes.values())
    for row in found.layers:
        size = sizes[row.name]
        assert row.share == pytest.approx(float(size.sum()) / whole, rel=1e-6)
        assert row.reached == pytest.approx(float(size[: row.rank].sum() / size.sum()), rel=1e-6)
    after = sum(
        tensor.numel() * tensor.element_size()
        for _, layer in adapted_layers(model)
        for adapter in methods_of(layer, "default").values()
        for tensor in adapter.state_dict().values()
    )
    fixed = sum(tensor.numel() * tensor.element_size() for tensor in model.fc.state_dict().values())
    assert found.file_bytes == after + fixed <= before.file_bytes
    assert len({row.rank for row in found.layers}) > 3 and {row.before for row in found.layers} == {4}
    # No layer was given its last rank while it was worth more in another of the same size.
    for one in found.layers:
        for other in found.layers:
            same_size = gradients[one.name].shape == gradients[other.name].shape
            if same_size and one.rank > 1 and other.rank < len(sizes[other.name]):
                assert sizes[one.name][one.rank - 1] >= sizes[other.name][other.rank] * (1 - 1e-9)


@pytest.mark.parametrize("init", ["kaiming", "pissa"])
def test_the_model_stays_the_base_trains_and_travels(init: str, tmp_path: Any) -> None:
    model, x = net(), torch.randn(2, 3, 32, 32).double()
    expected = model(x)
    report = vl.attach(model, vl.LoRAConfig(rank=3, alpha=6, init=init, unfreeze=["fc"], batchnorm="train"))
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}
    model.train()
    found = spread(model, budget=f"{report.file_bytes + 5000}B")
    assert found.file_bytes <= report.file_bytes + 5000 and vl.adapter_names(model) == ["default"]
    assert all(torch.equal(model.get_buffer(name), buffer) for name, buffer in statistics.items())
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(model.eval()(x), expected)
    scales = [
        method.alpha / method.rank
        for _, layer in adapted_layers(model)
        for method in layer.adapters["default"].values()
    ]
    assert scales == pytest.approx([2.0] * len(scales))
    perturb(model, 0.1)
    vl.save_adapter(model, tmp_path / "a.safetensors")
    fresh = net()
    vl.load_adapter(fresh, tmp_path / "a.safetensors")
    torch.testing.assert_close(fresh.eval()(x), model(x))


def test_attention_and_its_parts() -> None:
    model = timm.create_model("test_vit", num_classes=3).eval()
    nn.init.normal_(model.head.weight)
    vl.attach(model, vl.LoRAConfig(rank=4, targets=["attn.qkv:q,v", "attn.proj"], unfreeze=["head"]))
    plain = copy.deepcopy(model)
    found = vl.spread_ranks(model, [(torch.randn(4, 3, 160, 160), torch.randint(3, (4,)))], loss)
    assert {row.name for row in found.layers} == {path for path, _ in adapted_layers(plain)}
    assert "reached" in str(found) and str(found).endswith("kB to save")


def refused(model: nn.Module, message: str, data: Any = None, **settings: Any) -> None:
    before = {name: parameter.clone() for name, parameter in model.state_dict().items()}
    with pytest.raises(vl.InputError, match=message) as error:
        vl.spread_ranks(model, batches() if data is None else data, loss, **settings)
    assert "\n" not in str(error.value)
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], value) for name, value in before.items())


def test_what_cannot_be_spread_is_refused_and_nothing_changes() -> None:
    model = timm.create_model("test_resnet", num_classes=3, zero_init_last=False)
    vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=["fc"]))
    refused(model, "no adapter 'cam'", name="cam")
    refused(model, "there is no batch", data=[])
    refused(model, "budget is '9kB', and rank 1 everywhere takes", budget="9kB")
    refused(model, "the loss of batch 0 is nan", data=[(torch.full((2, 3, 32, 32), torch.nan), torch.tensor([0, 1]))])
    with torch.no_grad():
        model.fc.weight.zero_()
    refused(model, "no gradient reaches an adapted layer; is the head at zero")
    perturb(model, 0.1)
    refused(model, "has been trained already")
    vl.detach(model)
    vl.attach(model, vl.LoRAConfig(rank=2, method="tucker"))
    refused(model, "has a Tucker, whose rank can't be spread")
