"""What training would cost is what it costs."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import timm
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from visionlora.adapters.config import LoRAConfig
from visionlora.studies.costs import _COUNTS, METHODS, _cost, _inside, costs_of, noise, prepared, time_steps
from visionlora.studies.memory import bytes_kept

MODELS = (
    "test_resnet",
    "test_efficientnet",
    "test_vit",
    "test_convnext",
    "test_byobnet",
    "test_mambaout",
    "test_nfnet",
    "test_vit2",
)


SIZE = 32


@pytest.mark.parametrize("name", MODELS)
def test_bytes_kept_are_those_that_a_larger_batch_keeps(name: str) -> None:
    for method in METHODS:
        classifier, file_bytes = prepared(method, name, LoRAConfig(rank=4), 5, SIZE)
        foretold = _cost(classifier, file_bytes).bytes_kept(8)
        images = noise(classifier, 8)
        model = classifier.model
        counted = bytes_kept(model, lambda: F.cross_entropy(model(images), torch.zeros(8).long()))  # noqa: B023
        assert foretold == pytest.approx(counted, rel=0.1)


def test_steps_are_timed_with_freed_memory_kept_as_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = list[bool]()

    @contextmanager
    def noted(device: torch.device) -> Iterator[None]:
        assert device.type == "cpu"
        kept.append(True)
        yield
        kept.append(False)

    monkeypatch.setattr("visionlora.studies.costs.freed_memory_kept", noted)
    classifier, _ = prepared("lora", "test_resnet", LoRAConfig(rank=4), 5, SIZE)
    during = list[bool]()
    classifier.model.register_forward_hook(lambda *_: during.append(kept[-1]))
    assert time_steps(classifier, 2, 0.0) > 0
    assert len(during) >= 4 and all(during) and kept == [True, False]


def test_layers_add_up_to_the_whole() -> None:
    for cost in costs_of("test_resnet", LoRAConfig(rank=4), 5, SIZE).values():
        layers = cost.layers.values()
        assert sum(layer.trainable for layer in layers) == cost.trainable
        assert sum(layer.bytes_kept for layer in layers) == cost.image_bytes
        assert sum(layer.operations for layer in layers) == pytest.approx(cost.forward, rel=1e-3)


def test_operations_and_sizes_are_those_of_the_layers() -> None:
    config = LoRAConfig(rank=4)
    costs = costs_of("test_vit", config, 5, SIZE)
    plain = timm.create_model("test_vit", num_classes=5, img_size=SIZE)
    tokens = plain.patch_embed.num_patches
    fc1 = plain.blocks[0].mlp.fc1
    tokens += plain.num_prefix_tokens
    by_hand = 2 * tokens * fc1.in_features * fc1.out_features
    assert costs["full"].layers["blocks.0.mlp.fc1"].operations == by_hand
    assert costs["frozen"].layers["blocks.0.mlp.fc1"].operations == by_hand
    # The input's gradient and the weight's; not that of the image.
    assert 1.7 * costs["full"].forward < costs["full"].backward < 2 * costs["full"].forward
    assert costs["full"].trainable == sum(parameter.numel() for parameter in plain.parameters())
    assert costs["frozen"].trainable == sum(parameter.numel() for parameter in plain.head.parameters())
    factors = costs["lora"].layers["blocks.0.mlp.fc1"].trainable
    assert factors == 4 * (fc1.in_features + fc1.out_features)
    assert costs["frozen"].backward < costs["lora"].backward < 1.5 * costs["full"].backward
    assert costs["lora"].memory(8) - costs["lora"].memory(4) == 4 * costs["lora"].image_bytes


def test_convolutions_in_groups_are_counted_as_what_they_are() -> None:
    cost = _cost(*prepared("full", "test_efficientnet", LoRAConfig(rank=4), 5, SIZE))
    assert 1.5 * cost.forward < cost.backward <= 2 * cost.forward
    x, groups = torch.randn(2, 12, 9, 9, requires_grad=True), 4
    for layer, places in (
        (torch.nn.Conv2d(12, 8, 3, groups=groups), 8 * 7 * 7),
        (torch.nn.ConvTranspose2d(12, 8, 3, groups=groups), 12 * 9 * 9),
    ):
        counter = FlopCounterMode(display=False, custom_mapping=_COUNTS)
        out = layer(x).sum()
        with counter:
            out.backward()
        assert counter.get_total_flops() == 2 * 2 * 2 * places * layer.weight[0].numel()


def test_a_layer_keeps_what_is_kept_inside_of_it() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.GELU())
    x = torch.randn(3, 4)
    seen: list[str] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        seen.append(place())
        return tensor

    with _inside(model) as place, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        F.silu(model(x))
    assert set(seen) == {"0", "1", ""}
    assert not model._forward_hooks and not model._forward_pre_hooks
