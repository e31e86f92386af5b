"""Which adapters ``verify`` names as without effect, and that it leaves the model alone."""

import random
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import detection, segmentation

import visionlora as vl
from helpers.cases import MODELS, ModelCase, perturb, wake
from visionlora.adapters.effects import NO_EFFECT, NO_UPDATE, NOT_RUN


class Branches(nn.Module):
    """A layer that counts, one that is multiplied by zero, one that never runs, and one that is detached."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.muted = nn.Conv2d(4, 4, 1)
        self.auxiliary = nn.Linear(4, 2)
        self.detached = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + 0 * self.muted(x) + self.detached(x).detach()
        return self.head(x.mean((2, 3)))


class Functional(nn.Module):
    """Reads a layer's weight and never calls the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(4, 3)
        self.lost = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        assert self.lost.weight.shape == (3, 4)
        return nn.functional.linear(x, self.read.weight)


IMAGE = torch.rand(2, 3, 8, 8)


def branches() -> nn.Module:
    model = Branches()
    vl.attach(model, vl.LoRAConfig(rank=2))
    return model


@pytest.mark.parametrize("trained", [False, True])
def test_adapters_that_do_not_reach_the_output_are_named(trained: bool) -> None:
    model = branches()
    if trained:
        perturb(model)
    found = vl.verify(model, IMAGE)
    remarks = {effect.layer: effect.remark for effect in found.effects}
    assert remarks == {"stem": "", "muted": NO_EFFECT, "auxiliary": NOT_RUN, "detached": NO_EFFECT, "head": ""}
    assert found.without_effect == ["muted", "auxiliary", "detached"]
    assert found.not_run == ["auxiliary"]
    assert {effect.layer for effect in found.effects if effect.response > 0} == {"stem", "head"}


def test_a_weight_that_is_read_without_a_call_counts_as_run() -> None:
    model = Functional()
    vl.attach(model, vl.LoRAConfig(rank=2))
    found = vl.verify(model, torch.rand(5, 4))
    assert (found.without_effect, found.not_run) == (["lost"], [])


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_every_adapter_of_an_ordinary_model_has_an_effect(case: ModelCase) -> None:
    model = wake(case.make())
    report = vl.attach(model, vl.LoRAConfig(rank=2))
    found = vl.verify(model, torch.randn(2, 3, case.size, case.size))
    assert [effect.layer for effect in found.effects] == [layer.name for layer in report.adapted]
    assert not found.without_effect
    assert found.change == 0


def test_the_change_is_that_of_the_adapted_output() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    vl.attach(model, vl.LoRAConfig(rank=2))
    perturb(model)
    x = torch.rand(5, 4)
    with torch.no_grad():
        adapted, weight = model(x), model[0].weight
        with vl.disabled(model):
            base, frozen = model(x), model[0].weight
    found = vl.verify(model, x)
    assert found.change == pytest.approx(float((adapted - base).norm() / base.norm()), rel=1e-4)
    assert found.effects[0].update == pytest.approx(float((weight - frozen).norm() / frozen.norm()), rel=1e-4)


def test_the_response_is_the_change_that_random_steps_of_the_factors_make() -> None:
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 16, 3))
    vl.attach(model, vl.LoRAConfig(rank=4))
    perturb(model)
    x = torch.rand(2, 3, 12, 12)
    with torch.no_grad():
        output = model(x)
        for effect, layer in zip(vl.verify(model, x).effects, (model[0], model[2]), strict=True):
            factors = list(layer.adapters.parameters())
            before = [factor.clone() for factor in factors]
            squares = []
            for _ in range(50):
                for factor, value in zip(factors, before, strict=True):
                    factor.copy_(value + 1e-4 * torch.randn_like(value))
                squares.append(float((model(x) - output).square().sum()))
            for factor, value in zip(factors, before, strict=True):
                factor.copy_(value)
            measured = (sum(squares) / len(squares)) ** 0.5 / float(output.norm())
            assert effect.response == pytest.approx(100 * measured, rel=0.3)  # steps of 0.01, a hundred times these


def test_a_layer_whose_update_stayed_at_zero_is_named_in_a_trained_adapter() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    vl.attach(model, vl.LoRAConfig(rank=2))
    assert not vl.verify(model, torch.rand(5, 4)).without_effect
    perturb(model[1])
    found = vl.verify(model, torch.rand(5, 4))
    assert found.without_effect == ["0"]
    assert found.effects[0].remark == NO_UPDATE


@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_random_state_stay_as_they_are(training: bool) -> None:
    model = timm.create_model("test_byobnet", num_classes=5)
    vl.attach(model, vl.LoRAConfig(rank=2, unfreeze=["head.fc"], batchnorm="train"))
    model.train(training)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    kinds = [type(module) for module in model.modules()]
    grads = [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    random_states = torch.get_rng_state(), random.getstate()
    vl.verify(model, torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), random_states[0]) and random.getstate() == random_states[1]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [type(module) for module in model.modules()] == kinds
    assert [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()] == grads


def test_a_segmenter_with_a_dict_of_outputs() -> None:
    model = wake(segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3))
    vl.attach(model, vl.LoRAConfig(rank=2))
    found = vl.verify(model, torch.rand(1, 3, 64, 64))
    assert len(found.effects) > 60
    assert not found.without_effect


SIZE = {"min_size": 64, "max_size": 64}


def _retinanet() -> nn.Module:
    return detection.RetinaNet(_Backbone(), 3, anchor_generator=_anchors(), score_thresh=0.99, **SIZE)


def _faster_rcnn() -> nn.Module:
    return detection.FasterRCNN(_Backbone(), 3, rpn_anchor_generator=_anchors(), box_score_thresh=0.99, **SIZE)


def _anchors() -> nn.Module:
    return detection.anchor_utils.AnchorGenerator(((16, 32, 64),), ((0.5, 1.0, 2.0),))


class _Backbone(nn.Module):
    out_channels = 8

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.muted = nn.Conv2d(3, 8, 8, stride=8), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return x + 0 * self.muted(x)


@pytest.mark.parametrize("make", [_retinanet, _faster_rcnn])
def test_a_detector_that_detects_nothing(make: Callable[[], nn.Module]) -> None:
    model = wake(make())
    vl.attach(model, vl.LoRAConfig(rank=2))
    images = [torch.rand(3, 64, 64)]
    with torch.no_grad():
        assert not len(model.eval()(images)[0]["boxes"])
    found = vl.verify(model, images)
    assert found.without_effect == ["backbone.muted"]
    assert len(found.effects) >= 7
    assert found.change is None


def test_the_table_shows_every_layer_and_names_those_without_effect() -> None:
    shown = str(vl.verify(branches(), IMAGE))
    for name in ("stem", "muted", "auxiliary", "detached", "head"):
        assert any(line.startswith(name) for line in shown.splitlines())
    assert "2 of 5 adapted parameters have an effect" in shown
    assert "without effect: muted, auxiliary, detached" in shown
    assert NOT_RUN in shown


def test_parts_and_several_adapters_are_told_apart() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2)
    vl.attach(model, vl.LoRAConfig(rank=2, targets=["attn.qkv:q,v"]), name="first")
    vl.attach(model, vl.LoRAConfig(rank=2, targets=["attn.proj"]), name="second")
    x = torch.rand(1, 3, 32, 32)
    assert [effect.adapter for effect in vl.verify(model, x).effects] == ["second"]
    vl.activate(model, ["first", "second"])
    found = vl.verify(model, x)
    assert {(effect.adapter, effect.layer) for effect in found.effects} == {
        ("first", "blocks.0.attn.qkv:q,v"),
        ("second", "blocks.0.attn.proj"),
    }
    assert "first: blocks.0.attn.qkv:q,v" in str(found)


def test_what_can_not_be_verified_is_refused() -> None:
    model = branches()
    with pytest.raises(vl.InputError, match="not finite"):
        vl.verify(model, torch.full((1, 3, 8, 8), torch.nan))
    vl.activate(model, [])
    with pytest.raises(vl.InputError, match="no adapter is active"):
        vl.verify(model, IMAGE)
    with pytest.raises(vl.InputError, match="no adapter is active"):
        vl.verify(Branches(), IMAGE)
    classes = nn.Sequential(nn.Linear(4, 3), _ArgMax())
    vl.attach(classes, vl.LoRAConfig(rank=2))
    with pytest.raises(vl.InputError, match="without a floating-point tensor"):
        vl.verify(classes, torch.rand(5, 4))


class _ArgMax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(-1)
