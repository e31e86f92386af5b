"""A learning rate from one short rise: on a problem whose answer is known, and on a run's config."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from helpers.runs import make_config, make_images
from visionlora.cli.main import app
from visionlora.config import dump_config
from visionlora.errors import InputError
from visionlora.sections import TrainSection
from visionlora.training.lr_finder import HIGHEST, LOWEST, STEPS, find_lr
from visionlora.training.run import ready_to_try


def bowl(curvature: float, loss: Any = None) -> Any:
    """A state whose loss is a parabola that never stands still, with plain gradient descent: it diverges at a rate of
    2 / curvature.
    """
    weight, turns = torch.nn.Parameter(torch.tensor([3.0])), itertools.cycle([0.3, -0.3])
    optimizer = torch.optim.SGD([{"params": [weight], "peak_lr": 1e-3}], lr=1e-3)
    training = SimpleNamespace(
        train_batches=lambda epoch: [[(epoch, 0)]] * 7,
        train_loader=lambda keys: [{"image": torch.zeros(1), "target": torch.zeros(1)}] * len(keys),
        loss=loss or (lambda model, batch: 0.5 * curvature * (weight - next(turns)).square().sum()),
    )
    return SimpleNamespace(
        setup=SimpleNamespace(training=training),
        optimizer=optimizer,
        train=TrainSection(lr=1e-3, clip=0),
        model=torch.nn.Identity(),
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("curvature", [20.0, 200.0])
def test_it_lies_below_the_rate_at_which_a_parabola_diverges(curvature: float) -> None:
    steps: list[int] = []
    found = find_lr(bowl(curvature), steps.append)
    edge = 2 / curvature
    assert edge / 100 < found.lr < edge / 3 and found.lowest < 2 * edge
    assert len(found.rates) <= STEPS and found.rates[0] == LOWEST and found.rates[-1] <= HIGHEST * 1.0001
    assert f"train.lr={found.lr:.1e}" in str(found) and "\n" not in str(found)


def test_a_loss_that_falls_nowhere_is_refused() -> None:
    counted = iter(range(10**6))
    with pytest.raises(InputError, match="the loss fell at no learning rate"):
        find_lr(bowl(1.0, lambda model, batch: torch.tensor(1.0 + next(counted), requires_grad=True)))
    with pytest.raises(InputError, match="the first loss is not finite"):
        find_lr(bowl(1.0, lambda model, batch: torch.tensor(torch.nan, requires_grad=True)))


def test_the_command_prints_one_line_draws_and_leaves_no_run(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", train=3, val=2)
    config = tmp_path / "run.yaml"
    config.write_text(dump_config(make_config(images, tmp_path / "run")))
    result = CliRunner().invoke(app, ["find-lr", "--config", str(config), "--draw", str(tmp_path / "lr" / "rates.png")])
    assert result.exit_code == 0, result.output
    (line,) = result.output.splitlines()
    assert line.startswith("train.lr=") and (tmp_path / "lr" / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "run").exists()


def test_groups_keep_their_proportions(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", train=3, val=2)
    state = ready_to_try(make_config(images, tmp_path / "run", lr=0.01, head_lr=0.001))
    seen: list[dict[str, float]] = []
    step = state.optimizer.step

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.append({group["role"]: group["lr"] for group in state.optimizer.param_groups})
        return step(*args, **kwargs)

    state.optimizer.step = watched  # type: ignore[method-assign]
    find_lr(state)
    assert all(rates["head"] == pytest.approx(rates["adapter"] / 10) for rates in seen)
    assert seen[0]["adapter"] == pytest.approx(LOWEST) and seen[-1]["adapter"] > seen[0]["adapter"]
