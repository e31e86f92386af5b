"""Every block of the documents is run, in order, as a reader would run it."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.public_sets import write_camvid, write_cityscapes, write_pets, write_voc
from visionlora.cli.main import main
from visionlora.config import load_config
from visionlora.data.annotations.split import load_annotated_split
from visionlora.demo.annotated import write_annotated
from visionlora.demo.scenes import NIGHT, write_folder
from visionlora.tasks.detection.config import DetectionConfig

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: Path) -> Iterator[tuple[str, str, str]]:
    """(language, file name or "", text) of each fenced block."""
    yield from BLOCK.findall(document.read_text(encoding="utf-8"))


def run_command(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one line of a bash block: visionlora in this process, make as a dry run, the rest must be known."""
    if line.startswith(("echo ", "sed ")):
        subprocess.run(["bash", "-c", line], check=True)
        return
    words = shlex.split(line, comments=True)
    if not words or words[0] in ("pip", "tensorboard"):
        return
    if words[0] == "make":
        subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        return
    assert words[0] == "visionlora", line
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (0, None), line


def run_blocks(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, object] = {}
    count = 0
    for language, name, text in blocks(document):
        if language == "python":
            exec(compile(text, f"{document.name}, block {count}", "exec"), names)
        elif language == "bash":
            for line in text.splitlines():
                run_command(line, monkeypatch)
        elif language == "yaml":
            Path(name).write_text(text, encoding="utf-8")
        else:
            assert language == "text", f"{document.name} has a block of {language} that nothing runs"
        count += 1
    fences = re.findall(r"^```", document.read_text(encoding="utf-8"), re.MULTILINE)
    assert count == len(fences) // 2 > 0, "a block was not understood"


@pytest.mark.parametrize(
    "name", ["tutorial", "detection", "segmentation", "export", "methods", "live", "fleet", "new-classes"]
)
def test_every_block_of_a_tutorial_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    give_all_runs(lambda _task: ["train.epochs=1"], monkeypatch)  # what they learn is other tests' matter
    run_blocks(ROOT / "docs" / f"{name}.md", monkeypatch)


def test_every_command_about_comparing_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they do is run by the tests of the commands, on less: a study takes minutes."""
    monkeypatch.chdir(tmp_path)
    called: list[str] = []
    for command in (
        "compare.compare",
        "inspect.inspect",
        "evaluate.evaluate",
        "train.train",
        "directions.show_directions",
    ):
        name = command.partition(".")[0]
        monkeypatch.setattr(f"visionlora.cli.{command}", lambda *_given, name=name: called.append(name) or 0)
    run_blocks(ROOT / "docs" / "comparing.md", monkeypatch)
    assert called == ["compare", "compare", "inspect", "inspect", "evaluate", "train", "directions"]


def test_every_block_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small stand-in for the reader's images, and tiny models with random weights in the place of the hub's."""
    monkeypatch.chdir(tmp_path)
    for part, seed in (("PATH/train", 1), ("PATH/val", 2)):
        write_folder(tmp_path / part, NIGHT, 2, seed)
    (tmp_path / "PATH" / "val").rename(tmp_path / "FOLDER")
    write_folder(tmp_path / "PATH/val", NIGHT, 1, 2)
    write_annotated(tmp_path / "SITE", NIGHT, {"monday": 1, "tuesday": 1, "friday": 1}, 3)
    tiny = {"classification": ["model.name=test_resnet", "model.img_size=64"]}
    tiny |= {task: ["model.backbone=test_efficientnet", "model.size=64"] for task in ("detection", "segmentation")}
    shrink(tiny, monkeypatch)
    run_blocks(ROOT / "README.md", monkeypatch)


def test_every_block_about_data_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On public data sets as their archives unpack, with pictures of our own and a tiny model."""
    monkeypatch.chdir(tmp_path)
    write_pets(tmp_path / "pets")
    write_voc(tmp_path / "VOCdevkit" / "VOC2012")
    write_camvid(tmp_path / "CamVid")
    write_cityscapes(tmp_path / "cityscapes")
    tiny = {"classification": ["model.name=test_resnet", "model.img_size=64"]}
    shrink({**tiny, "segmentation": ["model.backbone=test_resnet", "model.size=48"]}, monkeypatch)
    run_blocks(ROOT / "data" / "README.md", monkeypatch)
    assert sorted(path.name for path in Path("runs").iterdir()) == ["breeds", "camvid", "streets", "trimaps", "voc"]


def test_every_block_about_footage_runs(tmp_path: Path, kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the kit's campus, at a size at which nothing is learnt."""
    monkeypatch.chdir(tmp_path)
    for name, there in {
        "vtest.avi": "data/pets2009_s2l1/vtest.avi",
        "annotations.json": "data/pets2009_s2l1/annotations.json",
        "base.safetensors": "weights/tf_efficientnet_lite0.safetensors",
    }.items():
        Path(name).symlink_to(kit / there)
    small = ["train.epochs=1", "train.batch_size=8", "model.size=96", "data.workers=0", "data.augment=none"]
    give_all_runs(lambda _task: small, monkeypatch)
    run_blocks(ROOT / "docs" / "footage.md", monkeypatch)
    assert len(list(Path("to_label").glob("*.jpg"))) == 10
    config = load_config(Path("runs/campus/config.yaml"))
    assert isinstance(config, DetectionConfig)
    split = load_annotated_split(config.data)
    seconds = [[image.fields["seconds"] for image in part.images] for part in (split.train, split.val)]
    assert min(abs(one - other) for one in seconds[0] for other in seconds[1]) > 2


def shrink(settings: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs get these settings by their task, and those of a run that is short and needs no download."""
    small = ["model.pretrained=false", "train.epochs=1", "train.batch_size=4", "data.workers=0"]
    give_all_runs(lambda task: [*small, *settings[task]], monkeypatch)


def give_all_runs(settings: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings by the task, which count more than those of the config and of the command line."""
    import visionlora.config as config

    parse = config.parse_overrides

    def parse_with_ours(values: dict[str, Any], given: list[str]) -> dict[str, Any]:
        return parse(values, [*given, *settings(values.get("task", "classification"))])

    monkeypatch.setattr(config, "parse_overrides", parse_with_ours)


def test_what_documents_link_to_exists() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "data" / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"
