"""``scripts/benchmark.py step`` on detectors and segmenters: every method does the same work on the same numbers."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmark import main
from benchmarks.step_measures import saved_bytes
from benchmarks.step_methods import METHODS, loss, make_case, make_step
from benchmarks.step_tasks import Case, Setup

pytest.importorskip("peft")
SETUPS = {
    "retinanet": Setup("detection", "retinanet", "test_resnet", batch=2, size=64, rank=2),
    "faster_rcnn": Setup("detection", "faster_rcnn", "test_efficientnet", batch=2, size=64, rank=2),
    "mask_rcnn": Setup("detection", "mask_rcnn", "test_vit", batch=1, size=64, rank=2),
    "torchvision": Setup("detection", "fasterrcnn_mobilenet_v3_large_320_fpn", None, batch=2, size=64, rank=2),
    "unet": Setup("segmentation", "unet", "test_efficientnet", batch=2, size=64, rank=2),
    "lraspp": Setup("segmentation", "lraspp_mobilenet_v3_large", None, batch=2, size=64, rank=2),
}


def step_loss(case: Case, setup: Setup) -> Tensor:
    return loss(case, case.model, setup)


def freeze_batchnorm(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@pytest.mark.parametrize("name", SETUPS)
def test_every_method_starts_at_the_same_loss(name: str) -> None:
    setup = SETUPS[name]
    losses = {}
    for method in METHODS:
        case = make_case(method, setup)
        if method == "full" and not case.keep_statistics:
            freeze_batchnorm(case.model)
        losses[method] = step_loss(case, setup).item()
        assert step_loss(case, setup).item() == losses[method], "the same draws in every step"
    assert losses["peft"] == losses["floor"] == losses["floor+head"] == losses["head"] == losses["full"] > 0
    assert losses["visionlora"] == pytest.approx(losses["full"], rel=1e-4)  # BatchNorm is folded


@pytest.mark.parametrize("name", SETUPS)
def test_factors_and_head_have_the_gradients_that_they_have_in_peft(name: str) -> None:
    setup = SETUPS[name]
    ours, theirs = make_case("visionlora", setup), make_case("peft", setup)
    mine, others = trained(ours.model), trained(theirs.model)
    grouped = {path for path, layer in ours.model.named_modules() if isinstance(layer, nn.Conv2d) and layer.groups > 1}
    assert set(mine) - set(others) == {(path, kind) for path in grouped for kind in ("lora_A", "lora_B")}
    assert set(others) <= set(mine)
    assert sum(kind == "lora_A" for _, kind in others) > 5
    with torch.no_grad():
        for case in (ours, theirs):
            for module in case.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.weight.clamp_(min=0.5)  # timm's residual branches begin with a weight of zero
        for key, other in others.items():
            if key[1] == "lora_B":  # of zeros as long as nothing has trained: A would have no gradient
                nn.init.normal_(mine[key], std=0.02)
            other.copy_(mine[key].view_as(other))
    for case in (ours, theirs):
        step_loss(case, setup).backward()
    for key, other in others.items():
        expected, found = other.grad, mine[key].grad
        assert expected is not None and found is not None, key
        error = torch.linalg.vector_norm(found - expected.view_as(found))
        assert error <= 1e-2 * torch.linalg.vector_norm(expected) + 1e-7, key
        assert expected.any(), key


def trained(model: nn.Module) -> dict[tuple[str, str], nn.Parameter]:
    """(layer, ``lora_A``, ``lora_B``, ``weight`` or ``bias``) -> what trains, of our model or of PEFT's."""
    pattern = (
        r"(?:base_model\.model\.)?(.+?)(?:\.adapters\.default\.weight|\.modules_to_save\.default)?"
        r"\.(lora_[AB]|weight|bias)(?:\.default\.weight)?"
    )
    found = {}
    for path, parameter in model.named_parameters():
        if parameter.requires_grad:
            match = re.fullmatch(pattern, path)
            assert match, path
            found[match[1], match[2]] = parameter
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["retinanet", "unet"])
def test_a_step_trains_what_the_method_trains(name: str, method: str) -> None:
    case = make_case(method, SETUPS[name])
    names = {layer for layer, _ in trained(case.model)}
    adapted = {layer for layer, kind in trained(case.model) if kind.startswith("lora_")}
    new = {layer for layer in names if layer.startswith(tuple(case.head))}
    assert bool(new) == (method != "floor")
    assert bool(adapted) == (method in ("peft", "visionlora"))
    assert (names == new | adapted) == (method != "full")
    assert not names & set(case.unused) and not adapted & new
    frozen = [module for module in case.model.modules() if isinstance(module, nn.BatchNorm2d) and not module.training]
    assert bool(frozen) == (method != "full" or case.keep_statistics)
    make_step(method, SETUPS[name])()


@pytest.mark.parametrize("name", ["retinanet", "unet"])
def test_an_adapted_step_saves_less_than_peft_and_full_fine_tuning(name: str) -> None:
    setup = replace(SETUPS[name], memory="low")
    saved = {method: saved_bytes(method, setup, batch=2) for method in METHODS}
    assert saved["visionlora"] < 0.8 * min(saved["peft"], saved["full"])
    assert saved["head"] < saved["floor"] <= saved["floor+head"] < saved["full"]


@pytest.mark.parametrize("name", ["retinanet", "torchvision", "unet"])
def test_the_floors_backward_ends_at_the_first_adapted_layer(name: str) -> None:
    case = make_case("floor", SETUPS[name])
    backbone = case.model.get_submodule("backbone")
    first, *rest = [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d)]
    reached: list[nn.Module] = []
    for layer in (first, rest[0]):
        layer.register_forward_hook(
            lambda layer, _inputs, output: output.register_hook(lambda _gradient: reached.append(layer)) and None
        )
    entered: list[bool] = []
    first.register_forward_pre_hook(lambda _layer, inputs: entered.append(inputs[0].requires_grad))
    step_loss(case, SETUPS[name]).backward()
    assert reached == [rest[0], first] and entered == [False]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["detection", "--model", "test_resnet"], "retinanet over test_resnet, NCHW, 64 px"),
        (["detection", "--detector", "ssdlite320_mobilenet_v3_large"], "ssdlite320_mobilenet_v3_large, NCHW"),
        (["segmentation", "--model", "test_vit", "--decoder", "linear"], "linear over test_vit, NCHW"),
    ],
)
def test_the_command_prints_every_method_and_writes_the_results(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "step.json"
    small = ["--size", "64", "--batch", "2", "--bytes-batch", "2", "--rank", "2", "--rounds", "1"]
    assert main(["step", "--task", *options, *small, "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert all(f"│ {name} " in shown for name in METHODS) and words in shown
    results = json.loads(file.read_text())["results"]
    assert list(results) == list(METHODS)
    assert all(len(result["seconds"]) == 1 and result["saved"] > 0 for result in results.values())
