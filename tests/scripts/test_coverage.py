"""``scripts/benchmark.py coverage`` on a sample of models, and that it reports what is broken."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from benchmark import main
from benchmarks.coverage_checks import PROPERTIES, Library, Result, check
from benchmarks.coverage_libraries import PEFT, VISIONLORA
from benchmarks.coverage_models import CLASSIFIERS, DETECTORS, SEGMENTERS, TIMM, Case, cases, missing_files

SAMPLE = (
    "mobilenetv3_small_050",
    "levit_128s",
    "shufflenet_v2_x0_5",
    "googlenet",
    "lraspp_mobilenet_v3_large",
    "ssdlite320_mobilenet_v3_large",
)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_of_the_models_passes(name: str) -> None:
    (case,) = (case for case in cases() if case.name == name)
    result = check(case, VISIONLORA)
    assert not result.failures
    assert result.layers > 20
    assert result.unmerged == 0
    assert result.idle == (6 if name == "googlenet" else 0)


def test_the_list_has_a_model_of_each_of_timms_files_and_each_kind_of_torchvisions() -> None:
    assert not missing_files()
    assert set(TIMM) <= {name.split(".")[0] for name in timm.list_models(pretrained=True)}
    assert len(cases()) == len(TIMM) + len(CLASSIFIERS) + len(SEGMENTERS) + len(DETECTORS)


def test_the_command_prints_a_table_and_writes_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "coverage.json"
    assert main(["coverage", "--only", "regnetx_*", "--peft", "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "visionlora: 1 of 1 models pass" in shown
    assert "PEFT: 0 of 1 models pass" in shown
    assert "PEFT ungrouped: 1 of 1 models pass" in shown
    results = json.loads(file.read_text())["results"]
    assert [result["library"] for result in results] == ["visionlora", "PEFT", "PEFT ungrouped"]
    assert results[0]["grouped"] > 0 and results[2]["grouped"] == 0
    assert "groups" in results[1]["failures"]["identity"]


def test_a_pattern_that_matches_no_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["coverage", "--only", "no_such_model"]) == 2
    assert "no_such_model" in capsys.readouterr().out


class Muted(nn.Module):
    """A layer that is used, and multiplied by zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.muted, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + 0 * self.muted(x)).mean((2, 3)))


class Sound(Muted):
    """The same without the layer that can't be alive."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.muted(self.stem(x)).mean((2, 3)))


def checked(make: type[nn.Module], library: Library = VISIONLORA) -> Result:
    return check(Case("made up", make.__name__, make, 8, lambda model: ["head"]), library)


def test_a_layer_without_gradient_is_reported() -> None:
    assert checked(Sound).passed
    result = checked(Muted)
    assert list(result.failures) == ["alive"]
    assert "1 layers" in result.failures["alive"] and "muted" in result.failures["alive"]


def test_a_library_that_breaks_a_property_is_reported() -> None:
    def attach_and_move(model: nn.Module, names: list[str]) -> nn.Module:
        adapted = VISIONLORA.attach(model, names)
        with torch.no_grad():
            adapted.get_parameter("stem.bias").add_(1)
        return adapted

    def merge_elsewhere(model: nn.Module) -> nn.Module:
        merged = VISIONLORA.merge(model)
        with torch.no_grad():
            merged.get_parameter("stem.weight").mul_(1.01)
        return merged

    def merge_into_other_keys(model: nn.Module) -> nn.Module:
        return nn.Sequential(VISIONLORA.merge(model))

    def attach_without_effect(model: nn.Module, names: list[str]) -> nn.Module:
        model.adapters = VISIONLORA.attach(nn.Sequential(Sound()), ["0.stem"])
        return model

    broken = {
        "identity": replace(VISIONLORA, attach=attach_and_move),
        "alive": replace(VISIONLORA, attach=attach_without_effect),
        "merged": replace(VISIONLORA, merge=merge_elsewhere),
        "reload": replace(VISIONLORA, merge=merge_into_other_keys),
    }
    assert set(broken) == set(PROPERTIES)
    for name, library in broken.items():
        assert name in checked(Sound, library).failures


def test_an_exception_fails_the_property_and_those_after_it() -> None:
    def refuse(model: nn.Module) -> nn.Module:
        raise RuntimeError("can't merge\nmore")

    result = checked(Sound, replace(VISIONLORA, merge=refuse))
    assert result.failures == dict.fromkeys(("merged", "reload"), "RuntimeError: can't merge")


def test_peft_is_held_to_the_same_properties() -> None:
    assert checked(Sound, PEFT).passed
    assert list(checked(Muted, PEFT).failures) == ["alive"]
