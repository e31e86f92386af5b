"""At a run's end the best epoch's file is evaluated only where it is not, to the bit, what was evaluated."""

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.runs import make_config, make_images
from visionlora.tasks.evaluation import score
from visionlora.tasks.registry import task_of
from visionlora.tasks.trained import Trained, load_trained
from visionlora.training import concluding
from visionlora.training.run import train


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[Trained]:
    """The models that are evaluated at the end."""
    seen: list[Trained] = []

    def noting(trained: Trained, *arguments: Any) -> Any:
        seen.append(trained)
        return score(trained, *arguments)

    monkeypatch.setattr(concluding, "score", noting)
    return seen


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"epochs": 3, "keep": "last"},
        {"method": "head"},
        {"method": "full"},
        {"ema": 0.5},
        {"channels_last": True},
        {"autocast": "bf16"},
    ],
    ids=str,
)
def test_what_was_evaluated_is_not_evaluated_again(
    images: Path, tmp_path: Path, evaluations: list[Trained], settings: dict[str, Any]
) -> None:
    config = make_config(images, tmp_path / "run", **settings)
    result = train(config, quiet=True)
    assert not evaluations
    setup = task_of(config.task).set_up(config)
    again = score(load_trained(tmp_path / "run"), setup.val, 4)
    if config.train.autocast == "off":
        assert again.scores() == pytest.approx(result.scores, rel=1e-4)
        assert again.details() == result.details
    else:
        assert again.scores()["loss"] == pytest.approx(result.scores["loss"], rel=0.05)


def test_a_file_that_gives_another_model_is_evaluated(
    images: Path, tmp_path: Path, evaluations: list[Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(path: Path, alone: bool) -> Trained:
        trained = load_trained(path, alone=alone)
        with torch.no_grad():
            next(trained.model.parameters()).view(-1)[0] += 1e-6
        return trained

    monkeypatch.setattr(concluding, "load_trained", other)
    train(make_config(images, tmp_path / "run"), quiet=True)
    assert len(evaluations) == 1


def test_a_run_that_goes_on_evaluates_what_another_process_left(
    images: Path, tmp_path: Path, evaluations: list[Trained]
) -> None:
    first = train(make_config(images, tmp_path / "run"), quiet=True)
    second = train(make_config(images, tmp_path / "run"), resume=True, quiet=True)
    assert len(evaluations) == 1
    assert second.scores == pytest.approx(first.scores, rel=1e-4)
