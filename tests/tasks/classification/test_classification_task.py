"""The classification task: its loss, its batches, its pictures and what it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from visionlora.data.classification.labelled import LabelledImages
from visionlora.data.classification.split import Split
from visionlora.data.classification.transforms import Preprocessing
from visionlora.errors import InputError
from visionlora.models.classifier import Classifier
from visionlora.tasks.classification import figures as figures_module
from visionlora.tasks.classification.config import ClassificationConfig, ClassifierSection
from visionlora.tasks.classification.inference import TrainedClassifier, predict_labels
from visionlora.tasks.classification.task import TASK
from visionlora.tasks.classification.training import ClassificationTraining, mixing
from visionlora.tasks.models import Trained
from visionlora.tasks.protocols import Metrics
from visionlora.training.run import monitored, train

PREPROCESSING = Preprocessing(16, 16, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), "bilinear", 1.0)
CLASSES = ["car", "person", "van"]
CPU = torch.device("cpu")


def config_with(train: dict[str, Any] | None = None, data: dict[str, Any] | None = None) -> ClassificationConfig:
    return ClassificationConfig.model_validate(
        {"model": {"name": "test_vit"}, "train": train or {}, "data": {"workers": 0, **(data or {})}}
    )


def labelled(labels: list[tuple[int, ...]], multilabel: bool = False, folder: Path = Path()) -> LabelledImages:
    return LabelledImages([folder / f"{i}.png" for i in range(len(labels))], labels, CLASSES, multilabel)


def split_of(labels: list[tuple[int, ...]], multilabel: bool = False, folder: Path = Path()) -> Split:
    images = labelled(labels, multilabel, folder)
    return Split(images, images, [])


def task_over(
    labels: list[tuple[int, ...]],
    train: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    multilabel: bool = False,
    folder: Path = Path(),
) -> ClassificationTraining:
    return ClassificationTraining(config_with(train, data), split_of(labels, multilabel, folder), PREPROCESSING)


def trained_with(model: nn.Module) -> TrainedClassifier:
    return Trained("classification", Classifier(model, [], {}), CLASSES, PREPROCESSING, Path(), {})


def metrics_of(data: LabelledImages) -> Metrics:
    return TASK.metrics(trained_with(Linear()), data, CPU)


def uneven(n: int = 40) -> list[tuple[int, ...]]:
    """One in ten is a van, and one in ten a person."""
    return [(2,) if i % 10 == 0 else (1,) if i % 10 == 1 else (0,) for i in range(n)]


class Linear(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 16 * 16, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))


def batch_of(n: int = 8) -> dict[str, Tensor]:
    return {"image": torch.randn(n, 3, 16, 16), "target": torch.arange(n) % 3}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_cross_entropy(smoothing: float) -> None:
    model, batch = Linear(), batch_of()
    expected = F.cross_entropy(model(batch["image"]), batch["target"], label_smoothing=smoothing)
    assert torch.equal(task_over(uneven(), {"label_smoothing": smoothing}).loss(model, batch), expected)


def test_the_multilabel_loss_is_binary_cross_entropy() -> None:
    model, images = Linear(), torch.randn(8, 3, 16, 16)
    labels = (torch.rand(8, 3) < 0.5).float()
    task = task_over([(0, 1), (), (2,)] * 4, multilabel=True)
    expected = F.binary_cross_entropy_with_logits(model(images), labels)
    assert torch.equal(task.loss(model, {"image": images, "target": labels}), expected)


MIXES: list[dict[str, float]] = [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}]


def mixer(settings: dict[str, float]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return mixing(config_with(settings).train, 3, multilabel=False)


@pytest.mark.parametrize("settings", MIXES)
def test_mixed_labels_keep_their_mass_and_agree_with_the_images(settings: dict[str, float]) -> None:
    # each image is its own class's one-hot as three flat channels, so that the mixed image shows the mixed label
    labels = torch.arange(12) % 3
    images = F.one_hot(labels, 3).float().view(12, 3, 1, 1).expand(12, 3, 64, 64).contiguous()
    changed = False
    for _ in range(5):
        mixed, soft = mixer(settings)(images, labels)
        assert torch.allclose(soft.sum(dim=1), torch.ones(12))
        assert (soft >= 0).all()
        assert torch.allclose(mixed.mean(dim=(2, 3)), soft, atol=1e-5)
        changed |= not torch.equal(mixed, images)
    assert changed


@pytest.mark.parametrize("settings", MIXES)
def test_mixing_follows_from_torchs_seed(settings: dict[str, float]) -> None:
    batch = batch_of()
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append([mixer(settings)(batch["image"], batch["target"])[0] for _ in range(4)])
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(results[0], results[2], strict=True))


def test_both_mixes_are_drawn_when_both_are_on() -> None:
    images, labels = torch.zeros(2, 3, 32, 32), torch.tensor([0, 1])
    images[1] = 1
    mix = mixer({"mixup": 1.0, "cutmix": 1.0})
    kinds = {bool(((mix(images, labels)[0] % 1) != 0).any()) for _ in range(40)}
    assert kinds == {True, False}  # mixup blends values, cutmix moves whole ones


def test_without_mixing_a_batch_passes_untouched() -> None:
    batch = batch_of()
    images, labels = mixer({})(batch["image"], batch["target"])
    assert images is batch["image"]
    assert labels is batch["target"]


@pytest.mark.parametrize("setting", ["mixup", "cutmix", "label_smoothing"])
def test_mixing_several_labels_is_refused(setting: str) -> None:
    with pytest.raises(InputError, match=f"train.{setting}"):
        task_over([(0, 1), (2,)], {setting: 0.1}, multilabel=True)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("monitor", ["loss", "calibration_error", "top2", "map"])
def test_an_unknown_monitor_shows_what_there_is(monitor: str, multilabel: bool, tmp_path: Path) -> None:
    write_table(tmp_path, 6)
    with pytest.raises(InputError) as caught:
        train(config_over(tmp_path, multilabel, monitor))
    assert f"train.monitor is '{monitor}'; choose from {'mAP' if multilabel else 'top1'}" in str(caught.value)
    assert not (tmp_path / "run").exists()


def write_table(folder: Path, n: int) -> None:
    write_images(folder, n)
    lines = [f"{index}.png,{CLASSES[index % 3]},{'train' if index < n // 2 else 'val'}" for index in range(n)]
    (folder / "table.csv").write_text("\n".join(["path,label,split", *lines]))


def config_over(folder: Path, multilabel: bool, monitor: str | None) -> ClassificationConfig:
    config = config_with(
        {"monitor": monitor, "epochs": 1}, {"csv": str(folder / "table.csv"), "multilabel": multilabel}
    )
    model = ClassifierSection(name="test_resnet", pretrained=False, img_size=32)
    return config.model_copy(update={"model": model, "out": folder / "run"})


def test_the_monitor_is_the_accuracy_or_the_mean_average_precision(tmp_path: Path) -> None:
    write_table(tmp_path, 6)
    for multilabel, given, expected in ((False, None, "top1"), (True, None, "mAP"), (False, "macro_f1", "macro_f1")):
        config = config_over(tmp_path, multilabel, given)
        assert monitored(config, TASK.set_up(config), CPU) == expected


def test_an_epoch_shows_every_image_once() -> None:
    batches = task_over(uneven(), {"batch_size": 7}).train_batches(3)
    assert [len(batch) for batch in batches] == [7, 7, 7, 7, 7, 5]
    keys = [key for batch in batches for key in batch]
    assert sorted(index for _, index in keys) == list(range(40))
    assert {epoch for epoch, _ in keys} == {3}


@pytest.mark.parametrize("balanced", [False, True])
def test_the_batches_follow_from_seed_and_epoch_alone(balanced: bool) -> None:
    def batches(seed: int, epoch: int, noise: int) -> list[list[tuple[int, int]]]:
        torch.manual_seed(noise)
        np.random.seed(noise)
        task = task_over(uneven(), {"seed": seed, "batch_size": 8}, {"balanced": balanced})
        for earlier in range(noise):
            task.train_batches(earlier)
        return task.train_batches(epoch)

    assert batches(1, 4, noise=0) == batches(1, 4, noise=3)

    def order(found: list[list[tuple[int, int]]]) -> list[int]:
        return [index for batch in found for _, index in batch]

    assert order(batches(1, 4, 0)) != order(batches(1, 5, 0))
    assert order(batches(1, 4, 0)) != order(batches(2, 4, 0))


def test_balanced_batches_show_rare_classes_as_often() -> None:
    labels = uneven(400)
    task = task_over(labels, {}, {"balanced": True})
    seen = [labels[index][0] for epoch in range(5) for batch in task.train_batches(epoch) for _, index in batch]
    assert len(seen) == 2000
    assert all(600 < seen.count(name) < 740 for name in range(3))


@pytest.mark.parametrize(
    ("images", "batch_size", "sizes"),
    [(9, 4, [4, 4]), (10, 4, [4, 4, 2]), (8, 4, [4, 4]), (1, 4, [1]), (3, 1, [1, 1, 1]), (5, 4, [4]), (5, 8, [5])],
)
def test_a_last_batch_of_one_image_is_left_out(images: int, batch_size: int, sizes: list[int]) -> None:
    task = task_over([(i % 3,) for i in range(images)], {"batch_size": batch_size})
    assert [len(batch) for batch in task.train_batches(0)] == sizes


def test_predicted_labels_come_with_probabilities_best_first() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    found = predict_labels(logits, CLASSES, multilabel=False, top=2)
    assert [[name for name, _ in image] for image in found] == [["person", "van"], ["car", "person"]]
    softmax = logits.softmax(dim=1)
    assert found[0][0][1] == pytest.approx(float(softmax[0, 1]))
    everything = predict_labels(logits, CLASSES, multilabel=False, top=99)
    assert [sum(value for _, value in image) for image in everything] == pytest.approx([1.0, 1.0])


def test_predicted_labels_are_independent_when_there_may_be_several() -> None:
    found = predict_labels(torch.tensor([[0.0, 2.0, -2.0]]).bfloat16(), CLASSES, multilabel=True, top=3)
    assert [name for name, _ in found[0]] == ["person", "car", "van"]
    assert [value for _, value in found[0]] == pytest.approx([0.8808, 0.5, 0.1192], abs=1e-4)


def write_images(folder: Path, n: int) -> None:
    generator = np.random.default_rng(0)
    for index in range(n):
        pixels = generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


def test_loaders_give_checked_batches(tmp_path: Path) -> None:
    write_images(tmp_path, 9)
    task = task_over([(i % 3,) for i in range(9)], {"batch_size": 4}, folder=tmp_path)
    shapes = [tuple(batch["image"].shape) for batch in task.train_loader(task.train_batches(0))]
    assert shapes == [(4, 3, 16, 16), (4, 3, 16, 16)]
    validation = list(TASK.loader(trained_with(Linear()), task.train_set.data, 4, 0))
    assert [len(batch["image"]) for batch in validation] == [4, 4, 1]
    assert torch.cat([batch["index"] for batch in validation]).tolist() == list(range(9))
    assert torch.cat([batch["target"] for batch in validation]).tolist() == [i % 3 for i in range(9)]


@pytest.fixture
def captions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Of the pictures that are drawn from now on: what stands over each image, and whether it is shown as right."""
    drawn: list[tuple[str, bool]] = []
    draw = figures_module.prediction_picture

    def noted(images: Tensor, texts: list[str], correct: list[bool]) -> np.ndarray:
        assert len(images) == len(texts)
        drawn.extend(zip(texts, correct, strict=True))
        return draw(images, texts, correct)

    monkeypatch.setattr(figures_module, "prediction_picture", noted)
    return drawn


@pytest.mark.parametrize("images", [1, 5, 30])
def test_an_evaluation_leaves_pictures(images: int, captions: list[tuple[str, bool]], tmp_path: Path) -> None:
    write_images(tmp_path, images)
    data = labelled([(i % 3,) for i in range(images)], folder=tmp_path)
    trained, metrics = trained_with(Linear().eval()), metrics_of(data)
    for batch in TASK.loader(trained, data, 4, 0):
        metrics.update(trained.model(batch["image"]).detach(), batch["target"])
    figures = TASK.figures(trained, data, metrics, CPU)
    assert set(figures) == {"predictions", "confusion_matrix"}
    assert len(captions) == min(images, 18)
    for text, right in captions:
        assert right == ("(is " not in text)


def test_the_pictures_tell_the_truth(captions: list[tuple[str, bool]], tmp_path: Path) -> None:
    write_images(tmp_path, 3)
    data = labelled([(0,), (1,), (1,)], folder=tmp_path)

    class AlwaysPerson(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([0.0, 5.0, 0.0]).expand(len(images), 3)

    metrics = metrics_of(data)
    metrics.update(torch.tensor([[0.0, 5.0, 0.0]] * 3), torch.tensor([0, 1, 1]))
    TASK.figures(trained_with(AlwaysPerson()), data, metrics, CPU)
    assert [text for text, _ in captions] == ["person\n(is car)", "person", "person"]


def test_several_labels_have_no_confusion_matrix(captions: list[tuple[str, bool]], tmp_path: Path) -> None:
    write_images(tmp_path, 4)
    data = labelled([(0, 1), (), (2,), (0,)], multilabel=True, folder=tmp_path)

    class FirstTwo(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([4.0, 3.0, -3.0]).expand(len(images), 3)

    figures = TASK.figures(trained_with(FirstTwo()), data, metrics_of(data), CPU)
    assert set(figures) == {"predictions"}
    titles = [text for text, _ in captions]
    assert titles == ["car, person", "car, person\n(is none)", "car, person\n(is van)", "car, person\n(is car)"]


def test_a_classifier_is_built_as_its_section_says() -> None:
    section = ClassifierSection(name="test_vit", pretrained=False, img_size=32, mean=(0.1, 0.2, 0.3), crop_pct=0.8)
    created = TASK.build(section, list("abcd"))
    assert created.data_config["input_size"] == (3, 32, 32)
    assert created.data_config["mean"] == (0.1, 0.2, 0.3)
    assert created.data_config["crop_pct"] == 0.8
    oblong = TASK.build(section.model_copy(update={"img_size": (32, 48)}), list("abcd"))
    assert oblong.data_config["input_size"] == (3, 32, 48)
