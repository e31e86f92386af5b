"""A batch seen in shares has the loss and the gradients of the whole, and images scored in shares the scores."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.tiny_detectors import create, images, look_at_few_boxes, no_objects, targets
from visionlora.data.segmentation.class_map import IGNORE
from visionlora.tasks.classification.metrics import ClassificationMetrics
from visionlora.tasks.classification.training import ClassificationTraining
from visionlora.tasks.detection.metrics import DetectionMetrics
from visionlora.tasks.detection.training import DetectionTraining
from visionlora.tasks.protocols import Additive, Training
from visionlora.tasks.segmentation.config import SegmentationTrain
from visionlora.tasks.segmentation.metrics import SegmentationMetrics
from visionlora.tasks.segmentation.training import SegmentationTraining

SHARES = ((0, 3), (3, 4))
"""Of four images; they are not of one size."""


def of_batch(batch: Mapping[str, Any], start: int, end: int) -> dict[str, Any]:
    return {key: values[start:end] for key, values in batch.items()}


def assert_the_shares_make_the_whole(training: Any, model: nn.Module, batch: dict[str, Any]) -> None:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def gradients(loss: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]

    torch.manual_seed(1)
    whole = training.loss(model, batch)
    parts_of_whole = dict(training.loss_parts)
    torch.manual_seed(1)
    shares = [training.loss_sums(model, of_batch(batch, *share)) for share in SHARES]
    total = {name: sum(share[name] for share in shares) for name in shares[0]}
    found = training.loss_of(total)
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-6)
    assert training.loss_parts.keys() == parts_of_whole.keys()
    # Each process differentiates the total by its own share alone, and gradients are summed.
    by_share = [
        gradients(training.loss_of({n: total[n].detach() - s[n].detach() + s[n] for n in total})) for s in shares
    ]
    expected = gradients(whole)
    assert any(gradient.abs().sum() > 0 for gradient in expected)
    for one, gradient in zip(zip(*by_share, strict=True), expected, strict=True):
        torch.testing.assert_close(sum(one), gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max() + 1e-3))


def plain(kind: type[Training], **values: Any) -> Any:
    """A training without a data set."""
    training = object.__new__(kind)
    vars(training).update(loss_parts={}, **values)
    return training


def test_a_classifiers_loss() -> None:
    training = plain(
        ClassificationTraining, _multilabel=False, _teacher=None, _mix=lambda images, labels: (images, labels)
    )
    training._train = SegmentationTrain().model_copy(update={"label_smoothing": 0.1})
    batch = {"image": torch.randn(4, 6), "target": torch.tensor([0, 2, 1, 1])}
    assert_the_shares_make_the_whole(training, nn.Linear(6, 3), batch)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_segmenters_losses(weighted: bool) -> None:
    training = plain(SegmentationTraining, _weights=torch.tensor([0.5, 3.0, 1.0]) if weighted else None)
    training._train = SegmentationTrain(loss={"cross_entropy": 1.0, "dice": 0.7, "focal": 0.3})
    target = torch.randint(0, 3, (4, 5, 7))
    target[0, :4], target[3] = IGNORE, IGNORE  # shares with few pixels, and with none
    batch = {"image": torch.randn(4, 3, 5, 7), "target": target}
    assert_the_shares_make_the_whole(training, nn.Conv2d(3, 3, 1), batch)


DETECTORS: dict[str, dict[str, Any]] = {
    "retinanet": {"backbone": "test_resnet"},
    "fcos": {"backbone": "test_resnet"},
    "mask_rcnn": {"backbone": "test_resnet"},
    "ssdlite320_mobilenet_v3_large": {},
}


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detectors_losses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # R-CNNs sample at random; here each takes the first.
    monkeypatch.setattr(torch, "randperm", lambda n, device=None: torch.arange(n, device=device))
    detector = create(name, ["ant", "bee"], **DETECTORS[name])
    look_at_few_boxes(detector.model)
    model = detector.model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Dropout):
            module.eval()
    pictures = images(*[(64, 64)] * 4)
    # The last share shows nothing, and divides by what it has not.
    truth = [*targets(detector, pictures[:3]), *no_objects(pictures[3:])]
    truth[1] = {key: values[:1] for key, values in truth[1].items()}
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    assert_the_shares_make_the_whole(
        plain(DetectionTraining, detector=detector), model, {"image": pictures, "target": truth}
    )
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before  # nothing is left watching


def classifier_metrics(multilabel: bool) -> tuple[Callable[[], Any], Any, Any]:
    labels = torch.randint(0, 2, (40, 7)).float() if multilabel else torch.randint(0, 7, (40,))
    return lambda: ClassificationMetrics(list("abcdefg"), multilabel), torch.randn(40, 7), labels


def segmenter_metrics() -> tuple[Callable[[], Any], Any, Any]:
    return lambda: SegmentationMetrics(["a", "b", "c"]), torch.randn(40, 3, 4, 5), torch.randint(0, 3, (40, 4, 5))


def detector_metrics() -> tuple[Callable[[], Any], Any, Any]:
    def boxes(number: int) -> Tensor:
        corners = torch.rand(number, 2) * 20
        return torch.cat([corners, corners + 5 + 20 * torch.rand(number, 2)], dim=1)

    def masks(shown: Tensor) -> Tensor:
        found = torch.zeros(len(shown), 48, 48, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(found, shown.long().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        return found

    outputs, truth = [], []
    for number in range(40):
        true = boxes(number % 4)
        found = torch.cat([true[:2] + 1, boxes(number % 3)])
        # Scores that are tied between images: their order counts.
        scores = torch.randint(1, 4, (len(found),)) / 4
        outputs.append({"boxes": found, "labels": torch.randint(0, 2, (len(found),)), "scores": scores})
        truth.append({"boxes": true, "labels": torch.randint(0, 2, (len(true),)), "iscrowd": torch.zeros(len(true))})
    for one in (*outputs, *truth):
        one["masks"] = masks(one["boxes"])
    return lambda: DetectionMetrics(["a", "b"], masks=True), outputs, truth


@pytest.mark.parametrize(
    "case",
    [lambda: classifier_metrics(False), lambda: classifier_metrics(True), segmenter_metrics, detector_metrics],
    ids=["single", "multi", "segmenter", "detector"],
)
def test_scores_of_shares_are_those_of_the_whole(case: Callable[[], tuple[Callable[[], Any], Any, Any]]) -> None:
    make, outputs, truth = case()
    whole = make()
    shares = [make() for _ in range(4)]
    for share, (start, end) in zip([whole, *shares], [(0, 40), (0, 17), (17, 18), (18, 40), (40, 40)], strict=True):
        for at in range(start, end, 6):  # the last one has no images at all
            share.update(outputs[at : min(at + 6, end)], truth[at : min(at + 6, end)])
    assert isinstance(whole, Additive)
    for share in shares[1:]:
        shares[0].add(share.state())
    found, expected = shares[0].scores(), whole.scores()
    # The mean loss is a sum of batches' sums in float32, and these batches are cut otherwise.
    assert found.pop("loss", 0) == pytest.approx(expected.pop("loss", 0), rel=1e-6)
    assert found == expected
    assert shares[0].per_class() == whole.per_class()
    for more in ("details", "thresholds"):
        assert getattr(shares[0], more, dict)() == getattr(whole, more, dict)()
