"""Results are what pycocotools reads, and come back as they were."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pycocotools.mask
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from helpers.coco_oracle import SIDE, Image, coco_verdict, random_scenes
from visionlora.errors import InputError
from visionlora.tasks.detection.results import Result, from_results, read_results, to_results, write_results

CATEGORIES = [7, 3, 11]
"""Ids of the classes, as a file may have them: with gaps, in any order."""

GOOD: Result = {"image_id": 1, "category_id": 3, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5}


def results_of(predictions: list[Image]) -> list[Result]:
    return [result for i, one in enumerate(predictions) for result in to_results(one, i, CATEGORIES)]


@pytest.mark.parametrize("masks", [False, True])
def test_detections_come_back_as_they_were(tmp_path: Path, masks: bool) -> None:
    predictions, _ = random_scenes(0, images=6, masks=masks)
    predictions[2] = {name: value[:0] for name, value in predictions[2].items()}
    write_results(tmp_path / "results.json", results_of(predictions))
    by_image = read_results(tmp_path / "results.json")
    assert list(by_image) == [i for i, one in enumerate(predictions) if len(one["labels"])]
    for i, prediction in enumerate(predictions):
        found = from_results(by_image.get(i, []), CATEGORIES, (SIDE, SIDE) if masks else None)
        assert found.keys() == prediction.keys()
        for name, value in prediction.items():
            assert found[name].shape == value.shape
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name], value)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_pycocotools_reads_the_file(tmp_path: Path, kind: str) -> None:
    predictions, targets = random_scenes(1, images=6, masks=True)
    expected = coco_verdict(predictions, targets, kind).stats
    path = tmp_path / "results.json"
    results = results_of(predictions)
    if kind == "segm":  # with a box, pycocotools takes a mask to be as large as its box
        results = [{key: value for key, value in result.items() if key != "bbox"} for result in results]
    write_results(path, results)
    truth = COCO()
    truth.dataset = {"info": {}, "categories": [{"id": i, "name": str(i)} for i in CATEGORIES], "annotations": []}
    truth.dataset["images"] = [{"id": i, "height": SIDE, "width": SIDE} for i in range(len(targets))]
    for i, target in enumerate(targets):
        for entry in to_results({**target, "scores": torch.ones(len(target["labels"]))}, i, CATEGORIES):
            area = float(pycocotools.mask.area(entry["segmentation"]))
            truth.dataset["annotations"].append(
                {**entry, "id": len(truth.dataset["annotations"]) + 1, "area": area, "iscrowd": 0}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(str(path)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats == pytest.approx(expected, abs=1e-9)


def test_a_result_has_cocos_form() -> None:
    prediction = {
        "boxes": torch.tensor([[10.0, 20, 40, 80]]),
        "labels": torch.tensor([2]),
        "scores": torch.tensor([0.5]),
    }
    assert to_results(prediction, "cam3/0001", CATEGORIES) == [
        {"image_id": "cam3/0001", "category_id": 11, "bbox": [10.0, 20.0, 30.0, 60.0], "score": 0.5}
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "can't be read as JSON"),
        ("{}", "not a list of results, as COCO's are, but dict"),
        ([1], r"entry 0 \(from 0\): int instead of an object"),
        ([GOOD, {"image_id": 1}], r"entry 1 \(from 0\): without category_id, bbox, score"),
        ([{**GOOD, "bbox": [1, 2, 3]}], "bbox must be four numbers"),
        ([{**GOOD, "bbox": [1, 2, 3, None]}], "bbox must be four numbers"),
        ([{**GOOD, "bbox": [1, 2, -3, 4]}], "negative width or height"),
        ([{**GOOD, "score": float("nan")}], "score must be a number"),
        ([{**GOOD, "score": "0.5"}], "score must be a number"),
        ([{**GOOD, "image_id": None}], "image_id must be"),
        ([{**GOOD, "category_id": "car"}], "category_id a whole number"),
    ],
)
def test_a_file_that_holds_no_results_is_refused_with_its_place(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        read_results(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_results(tmp_path / "results.json")


def test_an_unknown_category_is_refused() -> None:
    with pytest.raises(InputError, match=r"category 4 is none of the classes' \(7, 3, 11\)"):
        from_results([GOOD, {**GOOD, "category_id": 4}], CATEGORIES)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "without a segmentation"),
        ([[1, 2, 3, 4, 5, 6]], "without a segmentation"),
        ({"size": [9, 9], "counts": "0"}, "size .9, 9. for an image of .8, 8."),
        ({"size": [8, 8], "counts": "PP2"}, "run lengths are damaged"),
        ({"size": [8, 8], "counts": "ooooooooooooooooooo"}, "run lengths are damaged"),
    ],
)
def test_a_mask_that_cannot_be_is_refused(segmentation: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"image 1: .*{message}"):
        from_results([{**GOOD, "segmentation": segmentation}], CATEGORIES, (8, 8))
