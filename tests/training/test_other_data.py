"""A run goes on with the data and the settings that it began with, wherever they lie now, or says what is new."""

import json
import re
import shutil
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.detection_runs import make_detection_config, make_scenes
from helpers.runs import make_config, make_images
from visionlora.cli.main import main
from visionlora.config import dump_config, load_config
from visionlora.data.annotations.annotated import AnnotatedImage, LabelledObject, Polygons, RunLengths
from visionlora.data.segmentation.segmented import SegmentedImage
from visionlora.errors import InputError
from visionlora.tasks.registry import task_of
from visionlora.training.checkpoint import checkpoints
from visionlora.training.folder import CHECKPOINTS, CONFIG, METRICS, REPORT
from visionlora.training.resuming import data_fingerprint
from visionlora.training.run import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``images``, and a ``run`` on them."""
    home = tmp_path_factory.mktemp("home")
    train(make_config(make_images(home / "images"), home / "run", epochs=1), quiet=True)
    return home


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run and its images, which have been moved by this."""
    shutil.copytree(trained, tmp_path / "home")
    return tmp_path / "home"


def rename_class(images: Path) -> None:
    for part in ("train", "val"):
        (images / part / "red").rename(images / part / "crimson")


def add_class(images: Path) -> None:
    for part in ("train", "val"):
        shutil.copytree(images / part / "red", images / part / "violet")


def add_images(images: Path) -> None:
    for number in range(3):
        shutil.copy(images / "train" / "red" / f"{number}.png", images / "train" / "red" / f"new{number}.png")


def rename_image(images: Path) -> None:
    (images / "val" / "red" / "0.png").rename(images / "val" / "red" / "other.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename_class, r"other classes \(red gone, crimson new\)"),
        (add_class, r"other classes \(violet new\)"),
        (add_images, r"another number of images \(24, now 27\) in the training part"),
        (rename_image, "other files in the validation part"),
    ],
)
def test_other_data_are_refused_in_a_line(
    home: Path,
    change: Callable[[Path], None],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(home / "images")
    (home / "run.yaml").write_text(dump_config(make_config(home / "images", home / "run", epochs=3)))
    before = {path: path.read_bytes() for path in (home / "run").rglob("*") if path.is_file()}
    monkeypatch.setattr("sys.argv", ["visionlora", "train", "--config", str(home / "run.yaml"), "--resume"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(message, said), said
    assert before == {path: path.read_bytes() for path in (home / "run").rglob("*") if path.is_file()}


def test_data_that_were_moved_and_settings_that_may_change_are_taken(home: Path, trained: Path) -> None:
    """Two epochs more, elsewhere, with another learning rate; what was logged before stays."""
    moved = (home / "images").rename(home / "moved")
    config = make_config(moved, home / "run", epochs=3, lr=0.005, workers=1, checkpoint_every=5)
    result = train(config, resume=True, quiet=True)
    first, second = ((one / "run" / METRICS).read_bytes() for one in (trained, home))
    assert second.startswith(first)
    assert second.count(b'"val"') == 3
    assert load_config(home / "run" / CONFIG) == config
    assert json.loads((home / "run" / REPORT).read_text())["scores"] == result.scores
    with pytest.raises(InputError, match=r"train\.epochs is 2, and the run in .* has done 3; give more"):
        train(make_config(moved, home / "run", epochs=2), resume=True, quiet=True)


def test_a_run_that_ended_early_goes_on_with_more_patience(trained: Path, tmp_path: Path) -> None:
    settings = {"epochs": 4, "lr": 1e-9, "head_lr": 1e-9}
    images = trained / "images"
    train(make_config(images, tmp_path / "run", patience=1, **settings), quiet=True)
    assert (tmp_path / "run" / METRICS).read_bytes().count(b'"val"') == 2
    train(make_config(images, tmp_path / "run", patience=9, **settings), resume=True, quiet=True)
    assert (tmp_path / "run" / METRICS).read_bytes().count(b'"val"') == 4


def test_a_checkpoint_from_before_there_were_fingerprints_is_taken(home: Path) -> None:
    for checkpoint in checkpoints(home / "run" / CHECKPOINTS):
        state = json.loads((checkpoint / "state.json").read_text())
        del state["data"], state["manifest"]
        (checkpoint / "state.json").write_text(json.dumps(state))
        (checkpoint / "manifest.json").unlink()
    assert train(make_config(home / "images", home / "run", epochs=2), resume=True, quiet=True).scores


def test_a_score_that_is_not_that_of_the_best_epoch_is_an_error(home: Path) -> None:
    """The files keep their names and labels, and show something else."""
    blue, red = home / "images" / "val" / "blue", home / "images" / "val" / "red"
    blue.rename(home / "images" / "other")
    red.rename(blue)
    (home / "images" / "other").rename(red)
    report = (home / "run" / REPORT).read_bytes()
    config = make_config(home / "images", home / "run", epochs=1)
    with pytest.raises(InputError, match=r"its model has top1 0\.\d+ on the validation images, and had \d\.\d+ when"):
        train(config, resume=True, quiet=True)
    assert (home / "run" / REPORT).read_bytes() == report


def test_another_box_is_another_label(tmp_path: Path) -> None:
    path = make_scenes(tmp_path / "scenes")
    train(make_detection_config(path, tmp_path / "run", epochs=1), quiet=True)
    document = json.loads(path.read_text())
    for number, annotation in enumerate(document["annotations"]):
        annotation["id"] = 1000 + number
    path.write_text(json.dumps(document))
    train(make_detection_config(path, tmp_path / "run", epochs=1), resume=True, quiet=True)
    document["annotations"][0]["bbox"][2] -= 1
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="other labels in the training part"):
        train(make_detection_config(path, tmp_path / "run", epochs=2), resume=True, quiet=True)


def test_the_truth_of_a_segmented_image_is_its_mask_and_its_pixels() -> None:
    thing = LabelledObject(1, (0.0, 0.0, 2.0, 2.0), Polygons(((0.0, 0.0, 2.0, 0.0, 2.0, 2.0),)), source="line 3")
    ring = array("d", [0, 0, 2, 0, 2, 2]).tobytes()
    assert thing.plain() == (1, (0.0, 0.0, 2.0, 2.0), False, (ring,))
    runs = replace(thing, mask=RunLengths(3, 4, b"04"), crowd=True)
    assert runs.plain() == (1, (0.0, 0.0, 2.0, 2.0), True, (3, 4, b"04"))
    file = SegmentedImage(Path("a.png"), 4, 3, Path("masks/a.png"), (5, 7))
    drawn = SegmentedImage(Path("a.png"), 4, 3, (thing,), (5, 7))

    class Data:
        images = (file, drawn)

    assert task_of("segmentation").truth(Data()) == [
        (4, 3, (5, 7), "a.png"),
        (4, 3, (5, 7), [thing.plain()]),
    ]
    assert AnnotatedImage(Path("a.png"), 4, 3, (thing,)).objects[0].plain() == thing.plain()


def test_a_fingerprint_does_not_depend_on_the_folder(trained: Path, home: Path) -> None:
    found = []
    for place in (trained, home):
        config = make_config(place / "images", place / "run")
        task = task_of(config.task)
        found.append(data_fingerprint(task, task.set_up(config)))
    assert found[0] == found[1]
    assert found[0]["classes"] == ["blue", "green", "red"]
    assert (found[0]["train"]["images"], found[0]["val"]["images"]) == (24, 12)
