"""``scripts/benchmark.py step`` and ``routes`` on a tiny model: what is counted, and what is printed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmark import main
from benchmarks.routes import Shape, Timed
from benchmarks.step import pays_after
from benchmarks.step_measures import Measured, interleave, saved_bytes
from benchmarks.step_methods import METHODS, ON_REQUEST, make_case, make_step
from benchmarks.step_tasks import Setup
from visionlora.ops.cost import Costs
from visionlora.ops.geometry import Geometry

pytest.importorskip("peft")
SETUP = Setup("classification", None, "test_resnet", batch=2, size=32, rank=2)


def test_the_command_prints_every_method_and_writes_the_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "step.json"
    small = ["--model", "test_resnet", "--size", "32", "--batch", "2", "--bytes-batch", "2", "--rounds", "3"]
    assert main(["step", *small, "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert all(f"│ {name}" in shown for name in METHODS[:4]) and "batch 2 (bytes: 2)" in shown
    results = json.loads(file.read_text())["results"]
    assert list(results) == ["full", "peft", "visionlora", "floor"]
    assert all(len(result["seconds"]) == 3 and result["saved"] > 0 for result in results.values())


def test_an_adapted_step_saves_less_than_peft_and_full_fine_tuning() -> None:
    saved = {name: saved_bytes(name, SETUP, batch=2) for name in METHODS}
    assert saved["visionlora"] < 0.6 * min(saved["peft"], saved["full"])


def test_saved_bytes_are_those_of_the_activations() -> None:
    """In the floor a convolution saves its input, and frozen BatchNorm its own."""
    case = make_case("floor", SETUP, batch=2)
    entered = []
    for module in case.model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(lambda _module, inputs, _output: entered.append(inputs[0]))
    with torch.no_grad():
        case.loss(case.model)
    inputs = sum(tensor.untyped_storage().nbytes() for tensor in entered[1:])  # no gradient at the image
    assert 0.8 * inputs < saved_bytes("floor", SETUP, batch=2) < 1.5 * inputs


@pytest.mark.parametrize("method", [*METHODS, *ON_REQUEST])
def test_a_step_trains_what_the_method_trains(method: str) -> None:
    model = make_case(method, SETUP).model
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert bool(trained) == (method != "floor") and bool(frozen) == (method != "full")
    if method in ("peft", "visionlora", *ON_REQUEST):
        parts = ("adapters", "lora_", "lokr_", "hada_", "fc")
        assert all(any(part in name for part in parts) for name in trained)
    make_step(method, SETUP)()


def test_methods_take_turns_and_each_is_warmed_up() -> None:
    order: list[str] = []
    steps = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    rounds: list[None] = []
    found = interleave(steps, 2, "cpu", on_round=lambda: rounds.append(None))
    assert "".join(order) == "ab" + "aaabbb" + "bbbaaa" and len(rounds) == 2 + 2
    assert all(len(each.seconds) == 2 and each.first > 0 for each in found.values())


def test_compiled_steps_stand_beside_plain_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, modes = torch.compile, []

    def compiled(model: nn.Module, mode: str | None) -> Any:
        modes.append(mode)
        return real(model, backend="eager")

    monkeypatch.setattr("torch.compile", compiled)
    small = ["--model", "test_resnet", "--size", "32", "--batch", "2", "--bytes-batch", "2", "--rounds", "2"]
    assert main(["step", *small, "--methods", "full", "visionlora", "--compile", "max-autotune"]) == 0
    assert modes == ["max-autotune"] * 2
    rows = [line for line in capsys.readouterr().out.splitlines() if ", compiled" in line]
    assert len(rows) == 2 and all("never" in row or "steps" in row for row in rows)


def test_compiling_pays_after_so_many_steps() -> None:
    plain = Measured(first=2.0, seconds=[1.0, 1.0])
    assert pays_after(Measured(first=12.0, seconds=[0.75, 0.75]), plain) == "40 steps"
    assert pays_after(Measured(first=12.0, seconds=[1.0, 1.5]), plain) == "never"


@pytest.mark.parametrize("model", ["test_efficientnet", "test_vit"])
def test_routes_lists_every_kind_of_layer(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["routes", "--model", model, "--size", "160" if "vit" in model else "32", "--batch", "1"]) == 0
    shown = capsys.readouterr().out
    assert "factored" in shown and "ms over all layers" in shown


def test_routes_fit_prints_this_processors_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["routes", "--size", "32", "--batch", "1", "--fit", "test_efficientnet"]) == 0
    row = capsys.readouterr().out.strip().splitlines()[-1]
    assert re.fullmatch(r'"[A-Z0-9_ ]+": Costs\(read=\d+, vector=\d+\),', row, flags=re.IGNORECASE), row


def test_a_fit_takes_what_each_layer_takes_by_the_costs() -> None:
    layer = Timed(Shape((64, 8, 8), (64, 64, 3, 3), Geometry((1, 1), (1, 1), (1, 1), 1)), 3, 8, factored=1.0, dense=5.0)
    assert layer.as_taken(Costs(read=0, vector=1)) == 1.0 and layer.as_taken(Costs(read=10**6, vector=1)) == 5.0
