"""A new task in one file: image regression from a CSV, through every command, without a change in the package."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from helpers.squares import Command
from helpers.stopping import ctrl_c_in_loss
from visionlora.data.classification.transforms import Preprocessing, eval_transform
from visionlora.data.images import read_image
from visionlora.data.loading import Key, batches, epoch_order, make_loader
from visionlora.exports.opening import open_trained
from visionlora.models.classifier import Classifier, create_classifier
from visionlora.sections import DataSection, ModelSection, RunConfig
from visionlora.tasks.base import Chosen, SetUp, Task
from visionlora.tasks.models import Trained
from visionlora.tasks.protocols import Batch, Prediction, PredictOptions, Training
from visionlora.tasks.registry import TASKS, register
from visionlora.tasks.trained import load_trained

Regressor = Trained[Classifier, Preprocessing]


class RegressionData(DataSection):
    csv: Path


class RegressionConfig(RunConfig):
    task: Literal["regression"] = "regression"
    data: RegressionData


@dataclass(frozen=True)
class Table(Dataset[dict[str, Tensor]]):
    """Images and the number that belongs to each, as samples."""

    paths: list[Path]
    values: list[float]
    shown: Preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    def counts(self) -> list[int]:
        return [len(self)]

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        image = eval_transform(self.shown)(read_image(self.paths[key[1]]))
        return {"image": image, "target": torch.tensor([self.values[key[1]]])}


def read(path: Path, part: str, shown: Preprocessing) -> Table:
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == part]
    return Table([path.parent / row["path"] for row in rows], [float(row["value"]) for row in rows], shown)


class RegressionTraining(Training):
    def __init__(self, config: RegressionConfig, table: Table) -> None:
        self.table, self.train, self.loss_parts = table, config.train, dict[str, Tensor]()

    def train_batches(self, epoch: int) -> list[list[Key]]:
        order = epoch_order(len(self.table), self.train.seed, epoch)
        return batches(order, epoch, self.train.batch_size, drop_last=False)

    def train_loader(self, batch_list: list[list[Key]]) -> DataLoader[Any]:
        return make_loader(self.table, batch_list, workers=0)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.mse_loss(model(batch["image"]), batch["target"])


class Errors:
    names = ("minus_rmse",)

    def __init__(self) -> None:
        self.squares: list[float] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.squares += (outputs - targets).square()[:, 0].tolist()

    def scores(self) -> dict[str, float]:
        return {"minus_rmse": -(float(np.mean(self.squares)) ** 0.5)}

    def per_class(self) -> dict[str, dict[str, float]]:
        return {}

    def details(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Value(Prediction):
    value: float

    def entries(self, image_id: str) -> list[dict[str, Any]]:
        return [{"image": image_id, "value": self.value}]

    def tally(self) -> dict[str, float]:
        return {"value": self.value}


class Regression(Task[RegressionConfig, ModelSection, Classifier, Preprocessing, Table]):
    SCHEMA, noun = RegressionConfig, "regressor"

    def set_up(self, config: RegressionConfig) -> SetUp[Classifier, Preprocessing, Table]:
        torch.manual_seed(config.train.seed)
        built = self.build(config.model, ["value"])
        shown = Preprocessing.from_timm(built.data_config)
        training = RegressionTraining(config, read(config.data.csv, "train", shown))
        val = read(config.data.csv, "val", shown)
        return SetUp(built, ["value"], shown, training, val, config.model, f"{len(training.table)} images")

    def build(self, section: ModelSection, classes: Sequence[str]) -> Classifier:
        return create_classifier(section.name, len(classes), section.pretrained, section.checkpoint, (32, 32))

    def read_preprocessing(self, values: dict[str, Any]) -> Preprocessing:
        return Preprocessing.from_dict(values)

    def around(self, model: nn.Module, classes: list[str], about: dict[str, Any]) -> Classifier:
        return Classifier(model, [], {})

    def images(self, config: RegressionConfig, part: str, classes: list[str]) -> Chosen[Table]:
        shown = Preprocessing.from_timm(self.build(config.model, classes).data_config)
        return Chosen(read(config.data.csv, part or "val", shown))

    def loader(self, trained: Regressor, data: Table, batch_size: int, workers: int) -> DataLoader[Any]:
        return make_loader(data, batches(list(range(len(data))), 0, batch_size, drop_last=False), workers)

    def metrics(self, trained: Regressor, data: Table, device: torch.device) -> Errors:
        return Errors()

    def predict(
        self, trained: Regressor, images: Sequence[np.ndarray], options: PredictOptions, device: torch.device
    ) -> list[Value]:
        with torch.no_grad():
            shown = torch.stack([self.to_input(image, trained.preprocessing) for image in images]).to(device)
            return [Value(value) for value in trained.model(shown)[:, 0].tolist()]

    def paths(self, data: Table) -> list[Path]:
        return data.paths

    def to_input(self, image: np.ndarray, preprocessing: Preprocessing) -> Tensor:
        return eval_transform(preprocessing)(image)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register("regression", Regression())
    yield
    TASKS.pop("regression", None)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Grey squares whose value is their brightness."""
    generator, rows = np.random.default_rng(0), ["path,value,split"]
    for index in range(24):
        value = float(generator.uniform(0, 1))
        pixels = 255 * value + generator.normal(0, 20, (32, 32, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{index:02}.png")
        rows.append(f"{index:02}.png,{value},{'train' if index < 16 else 'val'}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    path = tmp_path / "regression.yaml"
    path.write_text(
        f"task: regression\nmodel: {{name: test_resnet, pretrained: false}}\ndata: {{csv: {tmp_path / 'table.csv'}}}\n"
        "lora: {rank: 2}\ntrain: {epochs: 6, batch_size: 4, lr: 0.01, head_lr: 0.02, log_every: 1}\n"
    )
    return path


def test_the_new_task_goes_from_end_to_end(visionlora: Command, config: Path, tmp_path: Path) -> None:
    run, images = tmp_path / "run", [tmp_path / "20.png", tmp_path / "21.png"]
    assert visionlora("train", "--config", config, f"out={run}").code == 0
    scores = json.loads((run / "report.json").read_text())["scores"]
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[4])
    assert first["kind"] == "val" and scores["minus_rmse"] > first["minus_rmse"]

    assert visionlora("eval", run, "--out", tmp_path / "scores.json").code == 0
    assert json.loads((tmp_path / "scores.json").read_text())["scores"] == pytest.approx(scores, abs=1e-5)
    trained, adapted = load_trained(run), load_trained(run, merged=False)
    seen = torch.stack([Regression().to_input(read_image(path), trained.preprocessing) for path in images])
    with torch.no_grad():
        expected = adapted.model(seen)[:, 0].tolist()

    def predicted(model: Path) -> list[float]:
        assert visionlora("predict", model, *images, "--out", tmp_path / "found.json").code == 0
        return [entry["value"] for entry in json.loads((tmp_path / "found.json").read_text())]

    assert predicted(run) == pytest.approx(expected, abs=1e-5)
    assert visionlora("merge", run, "--out", tmp_path / "merged.safetensors").code == 0
    assert predicted(tmp_path / "merged.safetensors") == pytest.approx(expected, abs=1e-5)
    outcome = visionlora("export", run, "--to", "onnx", "--out", tmp_path / "exported", "--rounds", 1)
    assert (outcome.code, outcome.err) == (0, "")
    assert "largest difference from the adapted model" in outcome.out
    assert predicted(tmp_path / "exported") == pytest.approx(expected, abs=1e-4)
    assert open_trained(tmp_path / "exported").task == "regression"
    assert "--draw is for detectors" in visionlora("predict", run, *images, "--draw", tmp_path / "drawn").err


def test_a_stopped_run_of_the_new_task_goes_on_bit_for_bit(
    visionlora: Command, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert visionlora("train", "--config", config, f"out={tmp_path / 'whole'}").code == 0
    with ctrl_c_in_loss(monkeypatch, RegressionTraining, 6):
        assert visionlora("train", "--config", config, f"out={tmp_path / 'run'}").code == 130
    assert visionlora("train", "--config", config, f"out={tmp_path / 'run'}", "--resume").code == 0
    one, other = (load_file(tmp_path / name / "adapter.safetensors") for name in ("whole", "run"))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_without_its_registration_the_task_is_unknown_in_one_line(
    visionlora: Command, config: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert visionlora("train", "--config", config, f"out={run}", "train.epochs=1").code == 0
    del TASKS["regression"]
    known = "; there are classification, detection, segmentation\n"
    for command in (("train", "--config", config), ("eval", run), ("predict", run, tmp_path / "20.png")):
        outcome = visionlora(*command)
        assert outcome.code == 2
        assert outcome.err.startswith("error: ") and outcome.err.endswith(known) and outcome.err.count("\n") == 1
        assert "task is 'regression'" in outcome.err
