"""A comparison of a detector's and of a segmenter's methods, from the config to the report."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from helpers.detection_runs import make_detection_config, make_scenes
from helpers.segmentation_runs import make_masks, make_segmentation_config
from visionlora.sections import RunConfig
from visionlora.studies.compare import compare
from visionlora.studies.methods import parse_methods
from visionlora.studies.plan import Budget, Plan
from visionlora.studies.report import write_report
from visionlora.tasks.detection.task import Detection
from visionlora.tasks.segmentation.task import Segmentation

WORDS = {"detection": "frozen,scratch", "segmentation": "lora-last-stage,full"}
"""All are run on both by hand: each takes seconds."""


@pytest.fixture(params=WORDS)
def config(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setattr("visionlora.studies.search.START", ((0, 0),))
    monkeypatch.setattr("visionlora.studies.search.FARTHEST", 0)
    settings: Any = {"warmup_epochs": 0, "evaluate_every": 1}
    if request.param == "detection":
        monkeypatch.setattr(Detection, "figures", lambda *_given: {})
        return make_detection_config(make_scenes(tmp_path / "data", 8, 4), tmp_path / "study", **settings)
    monkeypatch.setattr(Segmentation, "figures", lambda *_given: {})
    return make_segmentation_config(make_masks(tmp_path / "data", 8, 3), tmp_path / "study", **settings)


def test_a_study_of_annotated_images(config: RunConfig) -> None:
    words = WORDS[config.task].split(",")
    found = compare(
        Plan(config, tuple(parse_methods(words, [2])), (4, None), Budget(steps=2), 1), console=Console(file=StringIO())
    )
    write_report(found)
    assert found.score == {"detection": "mAP", "segmentation": "mIoU"}[config.task]
    assert [(ran.images, ran.steps) for ran in found.runs] == [(8, 2)] * len(words) + [(4, 2)] * len(words)
    for ran in found.runs:
        report = json.loads((config.out / "runs" / ran.cell.name / "report.json").read_text())
        assert ran.outcome.score == report["scores"][found.score]
        first = {name: next(iter(values.values())) for name, values in report["per_class"].items() if values}
        assert ran.outcome.per_class == first
    text = (config.out / "report.md").read_text()
    assert "| score |" in text and "| 4 | " in text and "-shot |" not in text
    assert f"Scores are of {found.tested} images. They" in text and "of each class" not in text
    told = {label for label, trial in found.trials.items() if "train.freeze_batchnorm=true keeps" in trial.note}
    assert told == ({"full"} if config.task == "segmentation" else set())
    assert all(f"\n- {label}: measures BatchNorm's statistics anew" in text for label in told)
    assert (config.out / "figures" / "score_by_labels.png").read_bytes().startswith(b"\x89PNG")
