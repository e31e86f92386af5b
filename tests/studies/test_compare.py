"""A comparison of two methods on generated squares: fair, resumable, and with the runs' own numbers."""

import csv
import json
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.squares import write_squares
from visionlora.config import check_config, load_config
from visionlora.errors import InputError
from visionlora.sections import AnnotatedData, RunConfig, TrainSection
from visionlora.stopping import Interrupted
from visionlora.studies.choosing import apart, caveats, choose
from visionlora.studies.compare import compare
from visionlora.studies.comparison import Comparison
from visionlora.studies.forecast import forecasts
from visionlora.studies.methods import Variant, parse_methods
from visionlora.studies.plan import Plan, parse_budget
from visionlora.studies.report import write_report
from visionlora.studies.table import rows_of
from visionlora.tasks.base import SetUp
from visionlora.tasks.classification.training import ClassificationTraining
from visionlora.tasks.registry import task_of
from visionlora.training.folder import CHECKPOINTS
from visionlora.training.monitor import Monitor

MEASURED = {"peak_bytes", "step_seconds", "seconds", "to_frozen", "to_nearly"}
"""What is another number each time."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_squares(root / "train", 6, seed=0)
    write_squares(root / "val", 3, seed=1)
    return root


@pytest.fixture(autouse=True, scope="module")
def _quick(no_figures: None) -> Any:
    """Searches end soon, too."""
    del no_figures
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("visionlora.studies.search.FARTHEST", 1)
        yield


def plan(
    images: Path, out: Path, methods: str = "frozen,lora", budget: str = "3steps", seeds: int = 2, **train: Any
) -> Plan:
    settings = {"epochs": 4, "batch_size": 6, "warmup_epochs": 1, "lr": 0.02, "head_lr": 0.01, **train}
    config = check_config(
        {
            "model": {"name": "test_vit", "pretrained": False, "img_size": 32},
            "data": {"root": str(images), "augment": "light", "workers": 0},
            "train": settings,
            "out": str(out),
        }
    )
    return Plan(config, tuple(parse_methods(methods.split(","), [2])), (2, None), parse_budget(budget), seeds)


def run(asked: Plan, resume: bool = False) -> Comparison:
    return compare(asked, resume, Console(file=StringIO()))


@pytest.fixture(scope="module")
def found(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """A whole study. Not to be changed."""
    study = run(plan(images, tmp_path_factory.mktemp("study") / "study"))
    write_report(study)
    return study


def folder(found: Comparison) -> Path:
    return found.plan.config.out


def configs(found: Comparison, kind: str) -> dict[str, RunConfig]:
    return {path.parent.name: load_config(path) for path in sorted((folder(found) / kind).glob("*/config.yaml"))}


def test_the_tables_numbers_are_those_of_the_runs_reports(found: Comparison) -> None:
    by_row: dict[tuple[str, int | None], list[float]] = {}
    for ran in found.runs:
        report = json.loads((folder(found) / "runs" / ran.cell.name / "report.json").read_text())
        lines = (folder(found) / "runs" / ran.cell.name / "metrics.jsonl").read_text().splitlines()
        evaluations = [line for line in map(json.loads, lines) if line["kind"] == "val"]
        assert ran.outcome.score == report["scores"]["top1"] == pytest.approx(evaluations[-1]["top1"], abs=1e-6)
        assert (ran.outcome.trainable, ran.outcome.file_bytes) == (report["trainable"], report["saved_bytes"])
        assert ran.outcome.curve == [(line["step"], line["top1"]) for line in evaluations]
        assert (folder(found) / "runs" / ran.cell.name / "adapter.safetensors").stat().st_size == report["saved_bytes"]
        by_row.setdefault((ran.cell.variant.label, ran.cell.shots), []).append(report["scores"]["top1"])
    for row in rows_of(found):
        scores = by_row[row.variant.label, row.shots]
        assert row.score == pytest.approx(sum(scores) / 2)
        assert row.spread == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)


def test_runs_side_by_side_come_to_the_same(
    found: Comparison, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(calls: dict[Any, Any], jobs: int, _console: Console, _stop: Any) -> Iterator[tuple[Any, Any, float]]:
        assert jobs == 2
        for key, call in reversed(calls.items()):
            yield key, pickle.loads(pickle.dumps(call))(Console(quiet=True)), 1.0

    for module in ("compare", "rates"):
        monkeypatch.setattr(f"visionlora.studies.{module}.side_by_side", elsewhere)
    study = run(replace(plan(images, tmp_path / "study", "frozen", seeds=1), jobs=2, evaluations=1))
    expected = {ran.cell: ran for ran in found.runs}
    assert len(study.runs) == 2 and study.rates["frozen"].best == found.rates["frozen"].best
    for ran in study.runs:
        assert ran.outcome.score == expected[ran.cell].outcome.score
        assert ran.outcome.curve == expected[ran.cell].outcome.curve[-1:]
    assert "2 runs were trained side by side" in caveats(rows_of(study), study)[4]


def test_every_run_has_the_same_budget(found: Comparison) -> None:
    assert [ran.steps for ran in found.runs] == [3] * 8
    for kind in ("runs", "rates"):
        for name, config in configs(found, kind).items():
            assert config.train.epochs == (3 if "2-shot" in name else 1), name  # 1 step an epoch, or 3
            assert config.train.warmup_epochs == pytest.approx(config.train.epochs / 4)
            assert (config.train.keep, config.train.patience) == ("last", 0)


def test_runs_of_a_seed_see_the_same_images_in_the_same_order(found: Comparison) -> None:
    runs = configs(found, "runs")
    seen: dict[str, list[Any]] = {}
    for name, config in runs.items():
        setup: SetUp = task_of(config.task).set_up(config)
        training = setup.training
        assert isinstance(training, ClassificationTraining)
        batches = [training.train_batches(epoch) for epoch in range(2)]
        first = next(iter(training.train_loader(batches[1][:1])))["image"]
        paths = [str(path) for path in training.train_set.data.paths]
        seen.setdefault(name.partition("_")[2], []).append((batches, paths, first))
    assert len(seen) == 4
    for (batches, paths, first), (others, theirs, image) in seen.values():
        assert (batches, paths) == (others, theirs) and torch.equal(first, image)
    assert len({str(entry[0][1]) for entry in seen.values()}) == 3  # two drawings of 2 of each class, and all


def test_rates_are_chosen_without_the_images_that_are_scored_on(found: Comparison, images: Path) -> None:
    rates = configs(found, "rates")
    assert len(rates) == sum(len(rate.tried) for rate in found.rates.values()) >= 6
    for config in rates.values():
        setup: SetUp = task_of(config.task).set_up(config)
        for data in (setup.train, setup.val):
            assert data is not None
            assert all(images / "train" in path.parents for path in data.paths)
        assert config.train.seed == 0
    for variant in found.plan.variants:
        of_it = [c.train for name, c in configs(found, "runs").items() if name.startswith(f"{variant.slug}_")]
        assert [(train.lr, train.head_lr) for train in of_it] == [found.rates[variant.label].best] * 4
        tried = {(train.lr, train.head_lr) for train in searched(rates, variant)}
        assert tried == set(found.rates[variant.label].tried)


def searched(rates: dict[str, RunConfig], variant: Variant) -> list[TrainSection]:
    return [config.train for name, config in rates.items() if name.startswith(f"{variant.slug}_")]


def test_two_rates_are_searched_and_one_where_the_head_trains_alone(found: Comparison) -> None:
    rates = configs(found, "rates")
    frozen, lora = (searched(rates, variant) for variant in found.plan.variants)
    assert all(train.head_lr / train.lr == pytest.approx(0.5, rel=1e-5) for train in frozen)
    ratios = [train.head_lr / train.lr for train in lora]
    assert {round(ratio, 4) for ratio in ratios} > {0.5}
    written = {rate for train in lora for rate in (train.lr, train.head_lr)}
    assert len(written) > 2 and all(len(Decimal(str(rate)).as_tuple().digits) <= 6 for rate in written)
    results = json.loads((folder(found) / "results.json").read_text())
    assert [row["head_lr"] for row in results["rows"]] == [
        found.rates[row.variant.label].best.head_lr for row in rows_of(found)
    ]


def test_together_a_methods_own_rates_keep_their_ratio_and_stand_in_the_table(images: Path, tmp_path: Path) -> None:
    asked = plan(images, tmp_path / "study", "lora:train.lr=0.001", seeds=1)
    study = run(replace(asked, rates_apart=False, shots=(None,), evaluations=1))
    write_report(study)
    (own,) = study.rates.values()
    assert all(rates.head_lr / rates.lr == pytest.approx(10, rel=1e-5) for rates in own.tried)
    (row,) = rows_of(study)
    used = load_config(tmp_path / "study" / "runs" / study.runs[0].cell.name / "config.yaml").train
    assert row.rates == (used.lr, used.head_lr) == own.best
    assert "kept their ratio" in (tmp_path / "study" / "report.md").read_text()
    with pytest.raises(InputError, match=r"--rates \(together, now apart\)"):
        run(replace(asked, shots=(None,)), resume=True)


def test_what_is_left_behind(found: Comparison) -> None:
    text = (folder(found) / "report.md").read_text()
    assert text.count("\n| ") == 6  # header, rule, 2 methods x 2 numbers of labels
    assert "Take " in text and "For comparison" in text and "of 9 images" in text
    for name in ("score_by_time", "score_by_parameters", "score_by_labels"):
        assert f"figures/{name}.png" in text
        assert (folder(found) / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((folder(found) / "results.csv").open()))
    runs = list(csv.DictReader((folder(found) / "runs.csv").open()))
    assert [row["method"] for row in rows] == ["frozen", "lora"] * 2
    assert [float(entry["score"]) for entry in runs] == [ran.outcome.score for ran in found.runs]
    events = EventAccumulator(str(folder(found) / "tensorboard" / runs[0]["run"])).Reload()
    assert events.Scalars("study/top1")[0].value == pytest.approx(float(runs[0]["score"]))
    assert not list(folder(found).rglob(CHECKPOINTS)) and not list(folder(found).rglob("*.tmp"))
    assert not list((folder(found) / "rates").rglob("*.safetensors"))


def stop_at(steps: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl+C in these training steps, counted over all runs."""
    loss: Callable[..., torch.Tensor] = ClassificationTraining.loss
    count = 0

    def counting(self: ClassificationTraining, model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        nonlocal count
        count += 1
        if count in steps:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(self, model, batch)

    monkeypatch.setattr(ClassificationTraining, "loss", counting)


def comparable(path: Path) -> Any:
    """Results without what is measured anew each time."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(inner) for key, inner in value.items() if key not in MEASURED}
        return [without(inner) for inner in value] if isinstance(value, list) else value

    return without(json.loads(path.read_text()))


def test_a_study_that_was_stopped_goes_on_to_the_same_results(
    found: Comparison, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = plan(images, tmp_path / "study", seeds=1)
    searches = 3 * sum(len(rate.tried) for rate in found.rates.values())  # steps
    with monkeypatch.context() as patched:
        # So late in a run that the run itself no longer looks.
        patched.setattr(Monitor, "hyperparameters", lambda *_given: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match="between two runs; the same command with --resume goes on"):
            run(asked)
        (first,) = (tmp_path / "study" / "outcomes").iterdir()
    with monkeypatch.context() as patched:
        stop_at({2, searches - 3 + 2}, patched)  # one run of the searches is done
        with pytest.raises(Interrupted, match="step 2"):
            run(asked, resume=True)
        assert not list((tmp_path / "study" / "runs").glob("*"))
        with pytest.raises(Interrupted):
            run(asked, resume=True)
        assert list((tmp_path / "study" / "runs").glob("*"))
    # As after a kill between a run's end and the file of what it came to.
    first.unlink()
    write_report(run(asked, resume=True))
    resumed, whole = (comparable(each / "results.json") for each in (tmp_path / "study", folder(found)))
    assert resumed["learning_rates"] == whole["learning_rates"]
    assert resumed["runs"] == [ran for ran in whole["runs"] if ran["seed"] == 0] and len(resumed["runs"]) == 4


def test_a_finished_study_is_not_run_again(found: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_given: object, **_named: object) -> None:
        raise AssertionError("a run was begun")

    monkeypatch.setattr("visionlora.studies.runs.train", never)
    monkeypatch.setattr("visionlora.studies.compare.try_out", never)
    assert run(found.plan, resume=True).runs == found.runs


def test_another_study_is_refused(found: Comparison, images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds a study; --resume goes on with it"):
        run(found.plan)
    with pytest.raises(InputError, match=r"another study.*train.lr \(0.02, now 0.5\)"):
        run(plan(images, folder(found), lr=0.5), resume=True)
    with pytest.raises(InputError, match=r"another study.*--budget \(3 steps, now 9 steps\)"):
        run(plan(images, folder(found), budget="9steps"), resume=True)
    with pytest.raises(InputError, match=r"another study.*--evaluations \(10, now 3\)"):
        run(replace(found.plan, evaluations=3), resume=True)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds notes.txt, and no study"):
        run(plan(images, tmp_path), resume=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_other_images_are_another_study(found: Comparison, images: Path, tmp_path: Path) -> None:
    write_squares(tmp_path / "more" / "train", 7, seed=0)
    write_squares(tmp_path / "more" / "val", 3, seed=1)
    with pytest.raises(InputError, match=r"began with other data.*number of images \(18, now 21\)"):
        run(plan(tmp_path / "more", folder(found)), resume=True)


def test_what_can_not_be_compared_is_refused_before_anything_is_trained(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--budget 2 steps: frozen, all: one epoch takes 3 steps; give more"):
        run(plan(images, tmp_path / "short", budget="2steps"))
    with pytest.raises(InputError, match="--methods lora:targets=nothing: .*nothing"):
        run(plan(images, tmp_path / "nothing", methods="frozen,lora:targets=nothing"))
    short = plan(images, tmp_path / "short", budget="2steps")
    with pytest.raises(InputError, match="one epoch takes 3 steps"):  # nothing was begun that would have to be resumed
        run(short)
    with pytest.raises(InputError, match="data.shots is 2, and class"):
        write_squares(tmp_path / "few" / "train", 1, seed=0)
        write_squares(tmp_path / "few" / "val", 1, seed=1)
        run(plan(tmp_path / "few", tmp_path / "too-few"))
    assert not list(tmp_path.glob("*/runs")) and not list(tmp_path.glob("*/rates"))


def test_what_more_labels_would_bring_is_told_where_there_are_three_numbers(found: Comparison, tmp_path: Path) -> None:
    sizes = {"frozen": [40, 20, 10, 10], "lora": [40, 20, 10, 10]}
    runs = []
    for ran in found.runs:
        n = sizes[ran.cell.variant.word].pop()
        outcome = replace(ran.outcome, score=1 - n**-0.5, per_class={"red": 1 - 2 * n**-0.5})
        runs.append(replace(ran, images=n, outcome=outcome))
    elsewhere = replace(found.plan, config=found.plan.config.model_copy(update={"out": tmp_path}))
    changed = replace(found, plan=elsewhere, runs=runs, tested=10**6)
    whole, by_class = forecasts(changed, found.plan.variants[0])
    assert [one.images for one in whole] == [60, 80, 160]
    assert [one.score for one in whole] == pytest.approx([1 - n**-0.5 for n in (60, 80, 160)])
    assert by_class["red"].score == pytest.approx(1 - 2 * 80**-0.5)
    write_report(changed)
    text = (tmp_path / "report.md").read_text()
    assert "## More labels" in text and f"| 80 | {1 - 80**-0.5:.4f} |" in text and "| red | " in text
    assert forecasts(found, found.plan.variants[0]) == ([], {})
    assert "More labels" not in (folder(found) / "report.md").read_text()


def test_the_smallest_file_that_is_as_good_is_chosen(found: Comparison) -> None:
    rows = [row for row in rows_of(found) if row.shots is None]
    frozen, lora = (replace(row, file_bytes=size) for row, size in zip(rows, (100, 200), strict=True))

    def with_scores(row: Any, *scores: float) -> Any:
        return replace(row, scores=dict(enumerate(scores)), score=sum(scores) / len(scores))

    best = with_scores(lora, 0.9, 0.8)
    assert choose([with_scores(frozen, 0.88, 0.79), best], found).variant.word == "frozen"  # within an image of 9
    assert choose([with_scores(frozen, 0.5, 0.4), best], found).variant.word == "lora"
    assert not apart(best, with_scores(frozen, 0.4, 0.95), 1 / 9)  # the seeds don't agree
    assert apart(best, with_scores(frozen, 0.7, 0.6), 1 / 9)  # they do, though their spread is as large
    of_boxes = replace(found.plan, config=found.plan.config.model_copy(update={"data": AnnotatedData()}))
    boxes = replace(found, plan=of_boxes)  # a point of mAP, not an image of 9
    assert choose([with_scores(frozen, 0.88, 0.78), best], boxes).variant.word == "lora"
    assert choose([replace(row, scores={}, score=None) for row in rows], found) is None


def test_times_to_a_score_are_read_off_the_curves(found: Comparison) -> None:
    curves = {"frozen": [(2, 0.5), (6, 0.6)], "lora": [(2, 0.55), (4, 0.7), (6, 0.9)]}
    disturbed = next(ran for ran in found.runs if ran.cell.variant.word == "lora" and ran.cell.shots is None)
    runs = [
        replace(
            ran,
            outcome=replace(
                ran.outcome,
                curve=curves[ran.cell.variant.word],
                score=curves[ran.cell.variant.word][-1][1],
                step_seconds=3.0 if ran is disturbed else 0.5,
            ),
        )
        for ran in found.runs
    ]
    frozen, lora = rows_of(replace(found, runs=runs))[:2]
    assert (frozen.step_seconds, lora.step_seconds) == (0.5, 0.5)
    assert (frozen.to_frozen, lora.to_frozen) == (3.0, 2.0)
    assert (frozen.to_nearly, lora.to_nearly) == (None, 3.0)
