"""``lora.rank=auto`` in a run: ranks within the budget, kept on resume, and in the config."""

from dataclasses import replace
from pathlib import Path

import pytest

import visionlora as vl
from helpers.runs import make_config, make_images
from visionlora.errors import InputError
from visionlora.sections import RunConfig
from visionlora.tasks.trained import ADAPTER
from visionlora.training.folder import settings_before
from visionlora.training.run import train


def auto(config: RunConfig, budget: str = "60kB") -> RunConfig:
    return config.model_copy(update={"lora": replace(config.lora, rank="auto", budget=budget)})


def test_ranks_are_measured_once_and_stand_in_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_images(tmp_path / "images", train=4, val=2)
    config = auto(make_config(images, tmp_path / "run", epochs=1))
    train(config, quiet=True)
    lora = settings_before(tmp_path / "run").lora
    assert lora.budget is None and len(set(lora.rank_pattern.values())) > 2
    layers = vl.read_header(tmp_path / "run" / ADAPTER).layers
    assert {key.removesuffix(".weight"): layer["rank"] for key, layer in layers.items()} == lora.rank_pattern
    monkeypatch.setattr("visionlora.training.auto_rank.spread_ranks", lambda *_a, **_k: pytest.fail("measured again"))
    train(auto(make_config(images, tmp_path / "run", epochs=2)), resume=True, quiet=True)
    assert settings_before(tmp_path / "run").lora == lora


def test_a_budget_that_is_too_small_leaves_no_run(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", train=2, val=2)
    with pytest.raises(InputError, match="budget is '3kB', and rank 1 everywhere takes"):
        train(auto(make_config(images, tmp_path / "run"), "3kB"), quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_head_at_zero_is_trained_before(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", train=2, val=2)
    config = auto(make_config(images, tmp_path / "run", epochs=1), "30kB")
    config = config.model_copy(update={"model": config.model.model_copy(update={"name": "test_vit", "drop_rate": 0.0})})
    train(config, quiet=True)  # timm's ViTs begin with a head of zeros, which lets no gradient through
    assert len(set(settings_before(tmp_path / "run").lora.rank_pattern.values())) > 1
