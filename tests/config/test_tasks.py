"""One schema per task, chosen by the key ``task``."""

from pathlib import Path
from typing import Any

import pytest

from visionlora.config import check_config, dump_config, load_config
from visionlora.errors import InputError
from visionlora.tasks.classification.config import ClassificationConfig
from visionlora.tasks.detection.config import DetectionConfig
from visionlora.tasks.segmentation.config import SegmentationConfig

DETECTOR = {"name": "fcos", "backbone": "test_vit"}


def detection(**sections: Any) -> dict[str, Any]:
    return {"task": "detection", "model": dict(DETECTOR), **sections}


def segmentation(**sections: Any) -> dict[str, Any]:
    return {"task": "segmentation", "model": {"name": "unet", "backbone": "test_resnet"}, **sections}


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        check_config(values, "my.yaml")
    line = str(caught.value)
    assert line.startswith("my.yaml: ") and "\n" not in line
    return line.removeprefix("my.yaml: ")


def test_the_task_chooses_the_schema() -> None:
    assert isinstance(check_config({"model": {"name": "test_vit"}}), ClassificationConfig)
    assert isinstance(check_config({"task": "classification", "model": {"name": "test_vit"}}), ClassificationConfig)
    assert isinstance(check_config(detection()), DetectionConfig)
    assert isinstance(check_config(segmentation()), SegmentationConfig)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("detecton", "task is 'detecton' (did you mean 'detection'?); there are classification, detection"),
        ("qqqq", "task is 'qqqq'; there are classification, detection"),
        (["detection"], "task is no name; there are classification, detection"),
        (None, "task is no name"),
    ],
)
def test_an_unknown_task_shows_what_there_is(task: Any, words: str) -> None:
    assert words in refusal({**detection(), "task": task})


@pytest.mark.parametrize(
    ("section", "key", "hint"),
    [
        ("data", "multilabel", ""),
        ("train", "mixup", ""),
        ("model", "img_size", "(did you mean 'model.size'?)"),
        ("data", "anotations", "(did you mean 'data.annotations'?)"),
        ("model", "tile", "(did you mean 'data.tile'?)"),
    ],
)
def test_keys_of_the_other_task_are_unknown(section: str, key: str, hint: str) -> None:
    values = detection()
    values.setdefault(section, {})[key] = 1
    line = refusal(values)
    assert line.startswith(f"unknown key '{section}.{key}'")
    assert hint in line


BAD = {
    "data.train": [5, ["a"], {"day": "monday"}, {"day": [["a"]]}],
    "data.every": [0, 1.5],
    "data.gap": [-1],
    "data.repeat_threshold": [-0.1, 1.1, float("nan")],
    "data.tile": [0, "large"],
    "data.tile_overlap": [-1],
    "data.leave_out": ["car"],
    "model.size": [0, "large"],
    "model.levels": [3, ["a"]],
    "model.anchors": ["fitted", {"sizes": [[1]]}, 3],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_a_bad_value_is_named(key: str, value: Any) -> None:
    section, _, name = key.partition(".")
    values = detection()
    values.setdefault(section, {})[name] = value
    assert refusal(values).startswith(f"{key}")


BAD_SEGMENTATION = {
    "model.size": [0, "large"],
    "model.channels": [0],
    "data.crop": [0, [32], [32, 0], "large"],
    "data.window": [0],
    "data.window_overlap": [-1],
    "data.tile": [64],
    "train.loss": ["dice", {"dice": "much"}, {"dice": float("inf")}],
    "train.focal_gamma": [-1],
    "train.class_weights": ["balanced"],
    "train.mixup": [0.2],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in BAD_SEGMENTATION.items() for value in values]
)
def test_a_bad_value_of_segmentation_is_named(key: str, value: Any) -> None:
    section, _, name = key.partition(".")
    values = segmentation()
    values.setdefault(section, {})[name] = value
    assert key in refusal(values)


def test_a_segmentation_config_is_read_as_it_was_saved(tmp_path: Path) -> None:
    data = {"root": "scenes", "classes": "classes.yaml", "crop": [32, 48], "window": 64, "background": None}
    config = check_config(segmentation(data=data, train={"loss": {"dice": 1, "focal": 0.5}}))
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    again = load_config(path, ["train.loss.cross_entropy=2"])
    assert isinstance(config, SegmentationConfig) and isinstance(again, SegmentationConfig)
    assert (again.data, again.model) == (config.data, config.model)
    assert again.data.crop == (32, 48)
    assert again.train.loss == {"dice": 1, "focal": 0.5, "cross_entropy": 2}


def test_a_detection_config_is_read_as_it_was_saved(tmp_path: Path) -> None:
    model = {**DETECTOR, "levels": [3, 4], "anchors": {"sizes": [[1.5], [3]], "aspect_ratios": [[1], [2]]}}
    data = {"train": {"day": ["007", 20171027], "camera": ["no"]}, "val": "val", "leave_out": ["car"], "tile": 64}
    config = check_config(detection(model=model, data=data))
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    again = load_config(path)
    assert again == config
    assert isinstance(again, DetectionConfig)
    assert again.data.train == {"day": ["007", "20171027"], "camera": ["no"]}


def test_an_override_chooses_images_by_field(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(check_config(detection())))
    config = load_config(path, ["data.train={day: [20171027, 20171030]}", "data.train.camera=[north]"])
    assert isinstance(config, DetectionConfig)
    assert config.data.train == {"day": ["20171027", "20171030"], "camera": ["north"]}
