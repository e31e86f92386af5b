"""Config files and overrides: how texts become values, and what can't be read."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from visionlora.config import load_config
from visionlora.data.annotations.yolo_yaml import load_yolo_yaml
from visionlora.data.segmentation.class_map import read_class_map
from visionlora.errors import InputError
from visionlora.plain_yaml import read_yaml
from visionlora.sections import RunConfig

MODEL = "model: {name: test_vit}\n"


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(MODEL)
    return path


def value(config: RunConfig, key: str) -> Any:
    found: Any = config
    for part in key.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.lr=1e-3", 0.001),
        ("train.lr=1E-3", 0.001),
        ("train.lr=.5e-3", 0.0005),
        ("train.lr=1", 1.0),
        ("train.epochs=010", 10),
        ("model.img_size=96", 96),
        ("model.img_size=[96, 64]", (96, 64)),
        ("model.mean=[1e-1,.5,0]", (0.1, 0.5, 0.0)),
        ("model.pretrained=false", False),
        ("model.pretrained=no", False),
        ("data.balanced=True", True),
        ("data.root=null", None),
        ("data.root=", None),
        ("data.root=~", None),
        ("data.root=a=b", Path("a=b")),
        ("data.root=1e5", Path("1e5")),
        ("data.root=nan", Path("nan")),
        ("data.root=C:\\photos", Path("C:\\photos")),
        ("data.root='a: b'", Path("a: b")),
        ("data.val=2017_11_01", "2017_11_01"),
        ("data.val=2017-11-01", "2017-11-01"),
        ("data.val=007", "007"),
        ("data.val=no", "no"),
        ("out=5", Path("5")),
        ("model.name=1e3", "1e3"),
        ("lora.targets=all", "all"),
        ("lora.targets=attn.qkv:q,v", "attn.qkv:q,v"),
        ("lora.targets=*.qkv", "*.qkv"),
        ("lora.targets=[attn.qkv, '*.fc1']", ["attn.qkv", "*.fc1"]),
        ("lora.unfreeze=null", None),
        ("lora.unfreeze=[]", []),
        ("lora.rank_pattern={blocks.0: 4}", {"blocks.0": 4}),
        ("train.autocast=off", "off"),
        ("train.autocast=bf16", "bf16"),
        ("train.monitor='null'", "null"),
    ],
)
def test_an_override_is_read_as_its_field_wants_it(yaml_file: Path, override: str, expected: Any) -> None:
    config = load_config(yaml_file, [override])
    found = value(config, override.partition("=")[0])
    assert found == expected
    assert type(found) is type(expected)


def test_the_file_is_read_as_overrides_are(yaml_file: Path) -> None:
    yaml_file.write_text(MODEL + "train: {lr: 1e-3, autocast: off}\ndata: {val: 2017_11_01, balanced: yes}\n")
    config = load_config(yaml_file)
    assert (config.train.lr, config.train.autocast) == (0.001, "off")
    assert (config.data.val, config.data.balanced) == ("2017_11_01", True)


def test_the_last_override_wins_and_the_file_stays_below(yaml_file: Path) -> None:
    yaml_file.write_text(MODEL + "train: {lr: 0.5, epochs: 3}\n")
    config = load_config(yaml_file, ["train.lr=0.1", "train.lr=0.2"])
    assert (config.train.lr, config.train.epochs) == (0.2, 3)


def test_a_section_without_settings_has_the_defaults(yaml_file: Path) -> None:
    yaml_file.write_text(MODEL + "data:\n  # root: photos\ntrain:\n")
    assert load_config(yaml_file).train.epochs == 10
    assert load_config(yaml_file, ["data.root=x"]).data.root == Path("x")


def test_anchors_and_merge_keys_work(yaml_file: Path) -> None:
    yaml_file.write_text(MODEL + "train: {<<: &x {lr: 0.5}, epochs: 3}\n")
    assert load_config(yaml_file).train.lr == 0.5


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epochs", "'train.epochs' is no override; write section.key=value"),
        ("=5", "'=5' is no override"),
        ("train.lr.x=3", "train.lr is {'x': '3'}"),
        ("train.epochs.x.y=3", "train.epochs is {'x': {'y': '3'}}"),
        ("train=3", "train is '3': it should be a section"),
        ("model.name.x=3", "'model.name.x=3': 'name' is not a section"),
        ("tran.lr=3", "unknown key 'tran' (did you mean 'train'?)"),
        ("train.=3", "unknown key 'train.'"),
        ("train..lr=3", "unknown key 'train.'"),
        (".lr=3", "unknown key ''"),
        ("train.epochs=true", "train.epochs is 'true'"),
        ("train.epochs=2.5", "train.epochs is '2.5'"),
        ("train.epochs=1:30", "train.epochs is '1:30'"),
        ("train.lr=null", "train.lr is None"),
        ("train.lr=nan", "train.lr is 'nan'"),
        ("train.lr=[1", "'train.lr=[1': not valid YAML"),
        ("data.root=@x", "put the value in quotes"),
        ("lora.targets=[*.qkv]", "put the value in quotes"),
        ("train.lr=!!python/object/apply:os.getcwd []", "python/object/apply:os.getcwd"),
    ],
)
def test_a_bad_override_is_refused_in_one_line(yaml_file: Path, override: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_config(yaml_file, [override])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds nothing, not settings"),
        ("# only a comment\n", "holds nothing, not settings"),
        ("- a\n- b\n", "holds a list, not settings"),
        ("resnet50", "holds a str, not settings"),
        ("a: [1\n", "not valid YAML"),
        ("a: b\n\tc: d\n", "not valid YAML"),
        ("a: b: c\n", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("? [a, b]\n: 3\n", "not valid YAML"),
        (MODEL + "train: {lr: 1}\ntrain: {lr: 2}\n", "'train' is there twice"),
        (MODEL + "train:\n  lr: 1\n  lr: 2\n", "'lr' is there twice"),
        ("!!python/object/apply:os.getcwd []\n", "not valid YAML"),
        (MODEL + "out: !!python/name:os.system\n", "not valid YAML"),
        (MODEL + "out: !!python/object/new:os.system [echo]\n", "not valid YAML"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        (MODEL + "1: 2\n", "unknown key '1'"),
        ("model: &m {name: *m}\n", "nested too deeply"),
        ("out: " + "[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("- " * 100_000, "nested too deeply"),
        (MODEL + 'out: "\\ud800"\n', "half a character"),
        (f"? {'x' * 2000}\n: 1", "a key of 2000 characters"),
        (MODEL + "out: !" + "x" * 2000, "not valid YAML"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused_in_one_line(yaml_file: Path, text: str, words: str) -> None:
    yaml_file.write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(yaml_file)
    assert str(caught.value).startswith(f"{yaml_file}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


WRONG_TAGS = [
    "!!map [1]",
    "!!map 3",
    "!!seq {a: 1}",
    "!!str [1]",
    "!!null [1]",
    "!!set [1]",
    "!!set {a}",
    "!!omap [1]",
    "!!pairs 3",
    "!!int '0x'",
    "!!int ''",
    "!!int '1:x'",
    "!!float ''",
    "!!float x",
    "!!bool x",
    "!!timestamp x",
    "!!timestamp '2024-99-99'",
    "!!binary '%%%'",
    "!<tag:yaml.org,2002:int> 0b",
    "!own x",
]


@pytest.mark.parametrize("text", WRONG_TAGS)
def test_a_tag_is_refused_in_one_line_wherever_yaml_is_read(yaml_file: Path, text: str) -> None:
    data = yaml_file.with_name("data.yaml")
    readers: list[Callable[[], object]] = [
        lambda: load_config(yaml_file),
        lambda: load_yolo_yaml(data, None, []),
        lambda: read_class_map(data),
    ]
    yaml_file.write_text(f"{MODEL}out: {text}\n")
    data.write_text(f"train: .\nclasses: [a, b]\nnames: {text}\n")
    for read in readers:
        with pytest.raises(InputError) as caught:
            read()
        assert "not valid YAML" in str(caught.value)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_bomb_of_merges_does_not_go_off(yaml_file: Path) -> None:
    merges = "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30))
    yaml_file.write_text("a0: &a0 {x: 1, y: 2}\n" + merges + MODEL)
    with pytest.raises(InputError):  # PyYAML from 6.0.4 on takes each entry once, and those before are stopped
        load_config(yaml_file)


BOMB = "a0: &a0 [lol]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 40))


@pytest.mark.parametrize("text", ["", "lora: {targets: *a39}", "lora: *a39", "lora: {rank_pattern: {x: *a39}}"])
def test_a_bomb_of_aliases_does_not_go_off(yaml_file: Path, text: str) -> None:
    yaml_file.write_text(BOMB + MODEL + text)
    with pytest.raises(InputError) as caught:
        load_config(yaml_file)
    assert len(str(caught.value)) < 3000


def test_text_that_is_not_utf8_is_refused(yaml_file: Path) -> None:
    yaml_file.write_bytes("model: {name: é}".encode("latin-1"))
    with pytest.raises(InputError, match="can't be read"):
        load_config(yaml_file)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_refused(yaml_file: Path) -> None:
    yaml_file.chmod(0)
    with pytest.raises(InputError, match="can't be read"):
        load_config(yaml_file)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InputError, match="no such config file"):
            load_config(path)


def test_scalars_stay_text_for_the_schema() -> None:
    text = "{a: 1, b: 1e-3, c: off, d: null, e: 2024-01-01, f: '5', g: [~, 0x10], h: 12:30}"
    assert read_yaml(text) == {
        "a": "1",
        "b": "1e-3",
        "c": "off",
        "d": None,
        "e": "2024-01-01",
        "f": "5",
        "g": [None, "0x10"],
        "h": "12:30",
    }
