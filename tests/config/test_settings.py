"""The schema: what is refused, with one line that says why, and what comes back as it was."""

from pathlib import Path
from typing import Any

import pytest

from visionlora.config import check_config, dump_config, load_config
from visionlora.errors import InputError
from visionlora.tasks.registry import schema_of

MODEL = {"name": "test_vit"}


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        check_config(values, "my.yaml")
    line = str(caught.value)
    assert line.startswith("my.yaml: ")
    assert "\n" not in line
    return line.removeprefix("my.yaml: ")


def with_field(key: str, value: Any) -> dict[str, Any]:
    section, _, name = key.partition(".")
    values: dict[str, Any] = {"model": dict(MODEL)}
    values.setdefault(section, {})[name] = value
    return values


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("modle", "model"),
        ("epochs", "train.epochs"),
        ("epoch", "train.epochs"),
        ("train.epcohs", "train.epochs"),
        ("train.rank", "lora.rank"),
        ("lora.lr", "train.lr"),
        ("lora.target", "lora.targets"),
        ("data.multi_label", "data.multilabel"),
        ("model.imgsize", "model.img_size"),
    ],
)
def test_an_unknown_key_shows_the_nearest(key: str, nearest: str) -> None:
    section, _, name = key.rpartition(".")
    values: dict[str, Any] = {"model": dict(MODEL)}
    (values.setdefault(section, {}) if section else values)[name] = 1
    assert refusal(values) == f"unknown key '{key}' (did you mean '{nearest}'?)"


@pytest.mark.parametrize(
    ("section", "some_known"), [("train", "train.method, train.epochs"), ("", "task, model, data, lora, train, out")]
)
def test_an_unknown_key_like_no_other_shows_what_there_is(section: str, some_known: str) -> None:
    values: dict[str, Any] = {"model": dict(MODEL)}
    (values.setdefault(section, {}) if section else values)["qqqqqq"] = 1
    line = refusal(values)
    assert "did you mean" not in line
    assert f"known are {some_known}" in line


@pytest.mark.parametrize("values", [{}, {"train": {"epochs": 3}}])
def test_the_model_must_be_given(values: dict[str, Any]) -> None:
    assert refusal(values) == "'model' is missing"


def test_the_models_name_must_be_given() -> None:
    assert refusal({"model": {"pretrained": False}}) == "'model.name' is missing"


FINITE = [float("nan"), float("inf"), -float("inf")]
NO_POSITIVE = [*FINITE, 0, -1]
NO_COUNT = [0, -1, 1.5, "many"]

BAD = {
    "model.img_size": [0, -32, "large", [32], [32, 32, 3], [0, 32], [32, -1]],
    "model.mean": [0.5, [0.5, 0.5], [0.5] * 4, [0.5, 0.5, float("nan")], ["a", "b", "c"]],
    "model.std": [0.5, [0.5, 0.5], [float("inf")] * 3],
    "model.crop_pct": NO_POSITIVE,
    "model.drop_rate": [-0.1, 1, float("nan")],
    "model.drop_path_rate": [-0.1, 1.0],
    "model.pretrained": ["maybe", 2],
    "data.val_fraction": [0, 1, -0.5, float("nan")],
    "data.workers": [-1, 1.5],
    "data.augment": ["heavy", True],
    "data.balanced": ["maybe"],
    "data.root": [["a", "b"], {"a": "b"}],
    "lora.rank": NO_COUNT,
    "lora.alpha": FINITE,
    "lora.targets": [{"a": "b"}, [["attn"]]],
    "lora.unfreeze": ["head"],
    "lora.exclude": ["head"],
    "lora.rank_pattern": [{"blocks": 0}, {"blocks": "x"}, {"blocks": {"0": 4}}, [4], 4],
    "lora.alpha_pattern": [{"blocks": float("nan")}],
    "lora.method": ["dora2", ""],
    "lora.batchnorm": ["off"],
    "train.method": ["ful"],
    "train.epochs": NO_COUNT,
    "train.batch_size": NO_COUNT,
    "train.accumulate": NO_COUNT,
    "train.lr": NO_POSITIVE,
    "train.head_lr": NO_POSITIVE,
    "train.lora_plus": NO_POSITIVE,
    "train.layer_decay": [0, 1.5, float("nan")],
    "train.ema": [-0.1, 1, float("nan")],
    "train.weight_decay": [*FINITE, -0.1],
    "train.warmup_epochs": [*FINITE, -1],
    "train.clip": [*FINITE, -1],
    "train.label_smoothing": [-0.1, 1, float("nan")],
    "train.mixup": [*FINITE, -1],
    "train.cutmix": [*FINITE, -1],
    "train.autocast": ["fp8", True],
    "train.seed": [-1, 0.5],
    "train.patience": [-1],
    "train.log_every": NO_COUNT,
    "train.checkpoint_every": NO_COUNT,
    "train.channels_last": ["maybe"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_a_bad_value_is_named_and_shown(key: str, value: Any) -> None:
    line = refusal(with_field(key, value))
    if line.startswith(f"{key}["):  # the entry of a pattern
        (key, value) = next((f"{key}[{name!r}]", entry) for name, entry in value.items())
    assert line.startswith(f"{key} is ")
    shown = repr(tuple(value) if isinstance(value, tuple) else value)
    assert shown in line


@pytest.mark.parametrize("section", ["model", "data", "lora", "train"])
@pytest.mark.parametrize("value", [5, "text", ["a"]])
def test_a_section_must_hold_settings(section: str, value: Any) -> None:
    assert f"{section} is {value!r}: it should be a section" in refusal({"model": dict(MODEL), section: value})


def test_several_problems_are_told_at_once() -> None:
    line = refusal({"model": dict(MODEL), "train": {"epochs": 0, "lr": -1, "lrr": 3}})
    assert line.count("; ") == 2
    for part in ("train.epochs is 0", "train.lr is -1", "unknown key 'train.lrr' (did you mean 'train.lr'?)"):
        assert part in line


def test_of_very_many_problems_the_first_are_told() -> None:
    line = refusal({"model": dict(MODEL), **{f"zzz{i}": i for i in range(50)}})
    assert line.endswith("and 46 more")


def test_a_long_value_is_shortened() -> None:
    assert len(refusal(with_field("train.lr", "1" * 10_000 + "x"))) < 300


def test_a_config_cannot_be_changed() -> None:
    config = check_config({"model": dict(MODEL)})
    with pytest.raises(ValueError, match="frozen"):
        config.train.lr = 1.0


EVERYTHING: dict[str, Any] = {
    "model": {
        "name": "null",
        "pretrained": False,
        "checkpoint": "weights/1e5.pth",
        "img_size": [32, 48],
        "mean": [0.5, 1e-7, 0],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "drop_rate": 0.1,
    },
    "data": {"root": "2017_11_01", "csv": "off", "train": "20171101", "val": "no", "multilabel": True, "workers": 0},
    "lora": {
        "rank": 4,
        "alpha": 1e-5,
        "targets": ["*.qkv", "re:^a: b", "attn.qkv:q,v"],
        "unfreeze": [],
        "rank_pattern": {"blocks.0": 2, "1": 3},
        "method": "rslora",
    },
    "train": {"lr": 1e-30, "autocast": "off", "monitor": "null", "seed": 7},
    "out": "~/a=b #c",
}


@pytest.mark.parametrize("values", [{"model": dict(MODEL)}, EVERYTHING], ids=["defaults", "everything"])
def test_a_saved_config_is_read_as_it_was(values: dict[str, Any], tmp_path: Path) -> None:
    config = check_config(values)
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config
    assert dump_config(load_config(path)) == dump_config(config)


def test_the_saved_config_shows_every_setting(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(check_config({"model": dict(MODEL)})))
    text = path.read_text()
    fields = schema_of("classification").model_fields
    for section in (fields["train"], fields["data"]):
        for name in section.annotation.model_fields:  # type: ignore[union-attr]
            assert f"  {name}:" in text


def test_lora_from_leaves_out_what_is_before() -> None:
    values = {
        "model": {"name": "resnet50"},
        "lora": {"from": "layer4", "exclude": ["*.downsample.*"], "targets": "conv"},
    }
    lora = check_config(values).lora
    assert lora.exclude == ["*.downsample.*", "before:layer4"] and lora.targets == "conv"
    assert check_config(check_config(values).model_dump(mode="json")).lora == lora
    with pytest.raises(InputError, match="lora.from is 4; give a module's name, such as layer4 or blocks.9"):
        check_config({"model": {"name": "resnet50"}, "lora": {"from": 4}})
