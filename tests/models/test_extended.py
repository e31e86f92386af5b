"""A base and what was adapted from it, together: the base's outputs bit for bit, the others' as alone."""

import copy
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import visionlora as vl
from helpers.cases import perturb
from visionlora.models.extended import Extended
from visionlora.models.joined_outputs import JoinDetections, JoinLogits, JoinPixels
from visionlora.tasks.extending import fit_rule, fit_shift, likeness_of

CASES = {  # name -> what is adapted, and a module that must be computed once
    "test_vit": ("re:blocks\\.1\\..*", "blocks.0"),
    "test_resnet": ("re:layer4\\..*", "layer3"),
    "test_efficientnet": ("re:blocks\\.4\\..*", "blocks.3"),
    "test_convnext": ("re:stages\\.3\\..*", "stages.2"),
    "resnet18": ("re:layer4\\.1\\..*", "layer3"),
}
SIZE = 160


def adapted(base: nn.Module, path: Path, classes: int = 3, target: str = "all", seed: int = 0) -> nn.Module:
    """A merged model with other classes and an adapter of the base, which is written there, too."""
    torch.manual_seed(seed)
    model, head = copy.deepcopy(base), base.default_cfg["classifier"]
    model.reset_classifier(classes)
    nn.init.normal_(model.get_submodule(head).weight)
    vl.attach(model, vl.LoRAConfig(rank=2, targets=[target], unfreeze=[head]))
    perturb(model, 0.2)
    vl.save_adapter(model, path)
    return vl.merge(model).eval()


def base_of(name: str, classes: int = 5) -> nn.Module:
    torch.manual_seed(7)
    model = timm.create_model(name, num_classes=classes).eval()
    nn.init.normal_(model.get_classifier().weight)
    return model


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_old_logits_are_the_bases_and_new_ones_the_adapters(name: str, tmp_path: Path) -> None:
    target, once = CASES[name]
    base, x = base_of(name), torch.randn(2, 3, SIZE, SIZE)
    expected, state = base(x), {key: value.clone() for key, value in base.state_dict().items()}
    alone = adapted(base, tmp_path / "new.safetensors", target=target)(x)
    extended = vl.extend(base, tmp_path / "new.safetensors")
    calls: list[int] = []
    handle = base.get_submodule(once).register_forward_hook(lambda *_: calls.append(1))
    found = extended(x)
    handle.remove()
    assert torch.equal(found[:, :5], expected) and torch.equal(found[:, 5:], alone)
    assert once in extended.shared("new") and extended.train() is extended and not extended.training
    # The hook is called for the replayed answer, too; what is in the module is not run again.
    inner = next(path for path, _ in base.get_submodule(once).named_modules() if path)
    runs: list[int] = []
    handle = base.get_submodule(f"{once}.{inner}").register_forward_hook(lambda *_: runs.append(1))
    extended(x)
    handle.remove()
    assert len(calls) == 2 and len(runs) == 1
    assert torch.equal(base(x), expected) and all(torch.equal(base.state_dict()[k], v) for k, v in state.items())
    # Weights that both have are there once.
    unique = {parameter.data_ptr() for parameter in extended.parameters()}
    assert len(unique) < len(list(base.parameters())) + len(list(extended.others["new"].parameters()))
    with torch.inference_mode():  # where nobody counts what is changed in place, nothing is taken over
        assert torch.equal(extended(x), found) and not extended.shared("new")


@torch.no_grad()
def test_a_third_set_on_top_and_one_taken_off(tmp_path: Path) -> None:
    base, x = base_of("test_resnet"), torch.randn(2, 3, 32, 32)
    one = adapted(base, tmp_path / "one.safetensors", 3, "re:layer4.*", seed=1)(x)
    two = adapted(base, tmp_path / "two.safetensors", 4, "all", seed=2)(x)
    extended = vl.extend(base, tmp_path / "one.safetensors", shifts={"one": 0.5})
    both = vl.extend(extended, tmp_path / "two.safetensors")
    torch.testing.assert_close(both(x), torch.cat([base(x), one + 0.5, two], dim=1), rtol=0, atol=0)
    torch.testing.assert_close(extended(x), torch.cat([base(x), one + 0.5], dim=1), rtol=0, atol=0)
    torch.testing.assert_close(both.without("one")(x), torch.cat([base(x), two], dim=1), rtol=0, atol=0)


@torch.no_grad()
def with_another_fc(base: nn.Module) -> tuple[Extended, Tensor, Tensor]:
    """A base beside a copy with another layer ``fc``; an input (3, 6), and the two's answers to it."""
    other = copy.deepcopy(base.eval())
    nn.init.normal_(other.fc.weight)
    x = torch.randn(3, 6)
    return Extended(base, {"new": other}, JoinLogits()), x, torch.cat([base(x), other(x)], dim=1)


class InPlace(nn.Module):
    """What one module gave is changed in place by the next line, as torchvision's blocks do."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.act, self.fc = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y += x
        z = self.act(self.b(y))
        z *= 2
        return self.fc(z)


@torch.no_grad()
def test_what_was_changed_in_place_is_computed_again() -> None:
    extended, x, expected = with_another_fc(InPlace())
    assert torch.equal(extended(x), expected) and torch.equal(extended(x), expected)
    assert not extended.shared("new")


class ByPart(nn.Module):
    """Calls what is in a module and never the module, as a pyramid does with the stages of its backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"a": nn.Sequential(nn.Linear(6, 6), nn.ReLU()), "b": nn.Linear(6, 6)})
        self.fc = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.body.values():
            x = part(x)
        return self.fc(x)


@torch.no_grad()
def test_of_a_module_that_is_never_called_its_parts_are_taken_over() -> None:
    extended, x, expected = with_another_fc(ByPart())
    runs: list[int] = []
    extended.base.body["a"][0].register_forward_hook(lambda *_: runs.append(1))
    for _ in range(2):
        assert torch.equal(extended(x), expected)
        assert extended.shared("new") == ["body.a", "body.b"]
    assert len(runs) == 2


@torch.no_grad()
def test_a_layer_that_two_modules_have_is_there_once() -> None:
    act = nn.Tanh()
    a, b = nn.Sequential(nn.Linear(6, 6), act), nn.Sequential(nn.Linear(6, 6), act)
    base = nn.Sequential(OrderedDict(a=a, b=b, fc=nn.Linear(6, 2)))
    extended, x, expected = with_another_fc(base)
    for _ in range(2):
        assert torch.equal(extended(x), expected)
        assert extended.shared("new") == ["a", "b"]


@torch.no_grad()
def test_one_takes_over_a_module_and_another_what_it_has_alike_in_there() -> None:
    base = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), nn.Linear(4, 2)).eval()
    one, two = copy.deepcopy(base), copy.deepcopy(base)
    nn.init.normal_(one[1].weight)
    nn.init.normal_(two[0][2].weight)
    x = torch.randn(3, 4)
    expected = torch.cat([base(x), one(x), two(x)], dim=1)
    extended = Extended(base, {"one": one, "two": two}, JoinLogits())
    for _ in range(2):
        assert torch.equal(extended(x), expected)
        assert extended.shared("one") == ["0"] and extended.shared("two") == ["0.0", "0.1"]


@torch.no_grad()
def test_outputs_that_nobody_takes_over_are_kept_once_and_no_more() -> None:
    base = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
    other = copy.deepcopy(base)
    nn.init.normal_(other[2].weight)
    made: list[weakref.ref[Tensor]] = []
    kept: list[bool] = []

    def join(old: Tensor, new: dict[str, Tensor]) -> Tensor:
        kept.append(made[0]() is not None)
        return torch.cat([old, new["new"]], dim=1)

    extended, x = Extended(base, {"new": other}, join), torch.randn(3, 4)
    expected = torch.cat([base(x), other(x)], dim=1)
    base[3].register_forward_hook(lambda _module, _inputs, output: made.append(weakref.ref(output)))
    for _ in range(3):
        made.clear()
        assert torch.equal(extended(x), expected)
        assert extended.shared("new") == ["0", "1"]
    assert kept == [True, False, False]


@torch.no_grad()
def test_other_tensors_settings_and_classes_are_the_models_own() -> None:
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.LeakyReLU(0.1), nn.Linear(4, 2)).eval()
    x = torch.randn(3, 4)
    for change in ("statistics", "slope", "class", "weight"):
        other = copy.deepcopy(base)
        if change == "statistics":
            other[1].running_mean += 1
        elif change == "slope":
            other[2] = nn.LeakyReLU(0.5)
        elif change == "class":
            other[2] = nn.ReLU()
        else:
            other[0].weight[0, 0] += 1
        expected = torch.cat([base(x), other(x)], dim=1)
        extended = Extended(base, {"new": other}, JoinLogits())
        assert torch.equal(extended(x), expected), change
        place = {"statistics": ["0"], "slope": ["0", "1"], "class": ["0", "1"], "weight": []}[change]
        assert extended.shared("new") == place


@torch.no_grad()
def test_a_head_within_what_is_unfrozen_gets_the_files_size(tmp_path: Path) -> None:
    base = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Sequential(nn.Dropout(), nn.Linear(6, 5))).eval()
    site, x = copy.deepcopy(base), torch.randn(3, 4)
    site[2][1] = nn.Linear(6, 2, bias=True)  # as torchvision's MobileNets have it
    vl.attach(site, vl.LoRAConfig(rank=1, targets=["0"], unfreeze=["2"]))
    perturb(site, 0.2)
    vl.save_adapter(site, tmp_path / "site.safetensors")
    found = vl.extend(base, tmp_path / "site.safetensors")(x)
    assert torch.equal(found, torch.cat([base(x), vl.merge(site).eval()(x)], dim=1))


@torch.no_grad()
def test_it_is_exported_and_answers_the_same(tmp_path: Path) -> None:
    base, x = base_of("test_resnet"), torch.randn(2, 3, 32, 32)
    adapted(base, tmp_path / "new.safetensors", target="re:layer4\\..*")
    extended = vl.extend(base, tmp_path / "new.safetensors")
    program = torch.export.export(extended, (x,))
    torch.testing.assert_close(program.module()(x), extended(x))
    convolutions = [node for node in program.graph.nodes if node.op == "call_function" and "conv" in str(node.target)]
    once = sum(isinstance(module, nn.Conv2d) for module in base.modules())
    again = sum(isinstance(module, nn.Conv2d) for module in base.layer4.modules())
    assert len(convolutions) == once + again  # what is shared is there once


@torch.no_grad()
def test_detections_of_both() -> None:
    torch.manual_seed(0)
    make: Any = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn
    settings = {"weights": None, "weights_backbone": None, "box_score_thresh": 0.0, "box_detections_per_img": 5}
    base = make(num_classes=3, **settings).eval()
    other = make(num_classes=2, **settings).eval()
    other.backbone.load_state_dict(base.backbone.state_dict())
    images = [torch.rand(3, 64, 64), torch.rand(3, 48, 80)]
    old, new = base(images), other(images)
    extended = Extended(base, {"new": other}, JoinDetections({"": 2, "new": 1}))
    found = extended(images)
    assert "backbone" in extended.shared("new")
    for one, a, b in zip(found, old, new, strict=True):
        many = len(a["boxes"])
        assert many and len(b["boxes"])
        assert all(torch.equal(one[key][:many], a[key]) for key in a)
        assert torch.equal(one["boxes"][many:], b["boxes"]) and torch.equal(one["labels"][many:], b["labels"] + 2)


def test_of_two_boxes_that_overlap_the_one_with_the_lower_score_goes() -> None:
    def found(scores: list[float], *boxes: list[float]) -> list[dict[str, Tensor]]:
        ones = torch.ones(len(boxes), dtype=torch.long)
        return [{"boxes": torch.tensor(boxes), "labels": ones, "scores": torch.tensor(scores)}]

    old = found([0.9, 0.2], [0, 0, 10, 10], [50, 50, 60, 60])
    new = found([0.5, 0.4, 0.3], [1, 0, 10, 10], [50, 50, 60, 61], [80, 80, 90, 90])
    (both,) = JoinDetections({"": 1, "new": 1})(old, {"new": new})
    assert both["scores"].tolist() == pytest.approx([0.9, 0.2, 0.5, 0.4, 0.3]) and both["labels"].tolist() == [
        1,
        1,
        2,
        2,
        2,
    ]
    (ruled,) = JoinDetections({"": 1, "new": 1}, overlap=0.5)(old, {"new": new})
    assert ruled["scores"].tolist() == pytest.approx([0.9, 0.4, 0.3]) and ruled["labels"].tolist() == [1, 2, 2]


def test_a_new_class_takes_pixels_only_where_it_beats_its_background() -> None:
    torch.manual_seed(0)
    old, new, more = torch.randn(2, 4, 5, 6), torch.randn(2, 3, 5, 6), torch.randn(2, 2, 5, 6)
    joined = JoinPixels({"new": 1, "more": 0})(old, {"new": new, "more": more})
    assert joined.shape == (2, 4 + 2 + 1, 5, 6) and torch.equal(joined[:, :4], old)
    won, expected = joined.argmax(1), old.argmax(1)
    best = new[:, [0, 2]].max(1)
    expected = torch.where(best.values > new[:, 1], 4 + best.indices, expected)
    expected = torch.where(more[:, 1] > more[:, 0], 6, expected)
    assert torch.equal(won, expected)


def test_classes_of_one_name_are_one() -> None:
    torch.manual_seed(0)
    old, new = torch.randn(5, 4), torch.randn(5, 3)
    found = JoinLogits({"new": 0.5}, {"new": [4, 2, 5]})(old, {"new": new})
    assert found.shape == (5, 6) and torch.equal(found[:, [0, 1, 3]], old[:, [0, 1, 3]])
    assert torch.equal(found[:, 2], torch.maximum(old[:, 2], new[:, 1] + 0.5))
    assert torch.equal(found[:, 4:], new[:, [0, 2]] + 0.5)
    maps, more = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    answer = JoinPixels({"new": 0}, {"new": [1, 3]})(maps, {"new": more}).argmax(1)
    wins, best = more[:, 1:].amax(1) > more[:, 0], more[:, 1:].argmax(1)
    assert torch.equal(answer, torch.where(wins, torch.tensor([1, 3])[best], maps.argmax(1)))
    one = {"boxes": torch.rand(3, 4), "labels": torch.tensor([1, 2, 1]), "scores": torch.rand(3)}
    (both,) = JoinDetections({"": 3, "new": 3}, same={"new": {2: 1}})([one], {"new": [one]})
    assert both["labels"].tolist() == [1, 2, 1, 4, 1, 4]


def test_the_least_shift_with_which_new_classes_win_on_their_own_images() -> None:
    torch.manual_seed(0)
    old, new = 5 + torch.randn(40, 10), torch.randn(40, 3)
    for share in (0.5, 0.95, 1.0):
        shift = fit_shift(old, new, share)

        def won(by: float) -> int:
            return int((new.amax(1) + by > old.amax(1)).sum())

        assert won(shift) == round(share * 40) > won(shift - 1e-3)
    with pytest.raises(vl.InputError, match="share is 0; give one above 0"):
        fit_shift(old, new, 0)
    with pytest.raises(vl.InputError, match="there are 0 and 3 images"):
        fit_shift(old[:0], new[:3])
    with pytest.raises(vl.InputError, match="there are 0 and 0 images"):
        fit_rule(old[:0], new[:0])


def test_new_classes_win_where_the_base_sees_what_it_sees_in_their_images() -> None:
    """A base of 50 classes takes images of the new ones for its first three, and is as sure of others'."""
    torch.manual_seed(1)
    seen = torch.randn(200, 50) + 9 * torch.nn.functional.one_hot(torch.arange(200) % 3, 50)
    others = torch.randn(200, 50) + 9 * torch.nn.functional.one_hot(3 + torch.arange(200) % 47, 50)
    new, anything = torch.randn(200, 2), torch.randn(200, 2)  # whatever an adapter says of what it never saw
    rule = fit_rule(seen, new)
    join = JoinLogits({"new": rule.shift}, likeness=likeness_of({"new": rule}))
    won, taken = (join(old, {"new": own}).argmax(1) >= 50 for old, own in ((seen, new), (others, anything)))
    assert won.float().mean() >= 0.98 and not taken.any()
    by_shift = JoinLogits({"new": fit_shift(seen, new)})(others, {"new": anything}).argmax(1) >= 50
    assert by_shift.float().mean() > 0.9
    joined = join(seen, {"new": new})
    assert torch.equal(joined[:, :50], seen)
    torch.testing.assert_close(joined[:, 50] - joined[:, 51], new[:, 0] - new[:, 1])  # between them the adapter decides


def test_images_that_are_unlike_each_other_leave_nothing_out() -> None:
    """The base takes each for another class: so it will the next one, and nothing can be said of it."""
    torch.manual_seed(2)
    old, new = 30 * torch.eye(20) + torch.randn(20, 20), torch.randn(20, 2)
    rule = fit_rule(old, new)
    unseen = torch.randn(30, 20) + 30 * torch.nn.functional.one_hot(torch.arange(30) % 20, 20)
    join = JoinLogits({"new": rule.shift}, likeness=likeness_of({"new": rule}))
    assert (join(unseen, {"new": 5 + torch.randn(30, 2)}).argmax(1) >= 20).float().mean() > 0.9
    (alone,) = likeness_of({"new": fit_rule(old[:1], new[:1])}).values()
    assert alone.least > 0


def test_what_can_not_be_extended_is_refused_in_one_line(tmp_path: Path) -> None:
    base, path = base_of("test_resnet"), tmp_path / "new.safetensors"
    adapted(base, path)
    extended = vl.extend(base, path)
    with pytest.raises(vl.InputError, match="there is a 'new' already; give the file another name"):
        vl.extend(extended, path)
    with pytest.raises(vl.InputError, match=r"shifts are for \['old'\], and there are: \['new'\]"):
        vl.extend(base, path, shifts={"old": 1.0})
    other = base_of("test_resnet")
    with torch.no_grad():
        other.conv1[0].weight.mul_(2)
    with pytest.raises(vl.InputError, match="conv1"):
        vl.extend(other, path)
    vl.attach(other, vl.LoRAConfig(rank=2))
    vl.save_adapter(other, tmp_path / "headless.safetensors")
    with pytest.raises(vl.InputError, match="holds no linear head of its own"):
        vl.extend(base, tmp_path / "headless.safetensors")
    vl.detach(other)
    vl.attach(other, vl.LoRAConfig(rank=2, unfreeze=["fc"]))
    vl.save_adapter(other, tmp_path / "detector.safetensors", extra={"task": "detection"})
    with pytest.raises(vl.InputError, match="is of a detection model; give Extended the merged model"):
        vl.extend(base, tmp_path / "detector.safetensors")
