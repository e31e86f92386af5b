"""Every command with a detector: from annotations to scores, COCO results and drawn images and videos."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers.detection_runs import COLOURS, HEIGHT, WIDTH, make_detection_config, make_scenes
from helpers.squares import Command
from visionlora.config import dump_config
from visionlora.data.annotations.layouts import read_annotations
from visionlora.data.images import read_image
from visionlora.data.video import VideoFrames
from visionlora.data.video_writer import VideoWriter
from visionlora.tasks.detection.inference import predict_detections
from visionlora.tasks.detection.results import read_results
from visionlora.tasks.detection.task import Detection
from visionlora.tasks.trained import load_trained
from visionlora.training.run import train


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("scenes"), train=12, val=3)


@pytest.fixture(scope="module")
def detector(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder. Not to be changed."""
    config = make_detection_config(
        scenes, tmp_path_factory.mktemp("detector") / "run", epochs=4, batch_size=2, lr=3e-3, head_lr=3e-3
    )
    return train(config, quiet=True).folder


def report(run: Path) -> dict[str, Any]:
    return json.loads((run / "report.json").read_text())  # type: ignore[no-any-return]


def test_training_says_what_it_does(visionlora: Command, scenes: Path, tmp_path: Path) -> None:
    path = tmp_path / "detection.yaml"
    path.write_text(dump_config(make_detection_config(scenes, tmp_path / "run", epochs=1)))
    outcome = visionlora("train", "--config", path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "fcos over test_resnet on 12 images with 17 objects of 2 classes, 3 to validate" in outcome.out
    assert "epoch 1/1  mAP" in outcome.out


def test_evaluating_a_run_gives_the_scores_of_its_report(visionlora: Command, detector: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    outcome = visionlora("eval", detector, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    found, expected = json.loads(out.read_text()), report(detector)
    assert found["images"] == 3
    assert found["scores"] == pytest.approx(expected["scores"], abs=1e-6)
    assert found["per_class"].keys() == expected["per_class"].keys()
    assert found["thresholds"].keys() == expected["thresholds"].keys()
    assert "AP50" in outcome.out and "objects" in outcome.out


@pytest.mark.parametrize(("part", "images"), [("train", 12), ("val", 3), ("day=friday", 3), ("all", 15)])
def test_any_part_can_be_evaluated(visionlora: Command, detector: Path, tmp_path: Path, part: str, images: int) -> None:
    out = tmp_path / "scores.json"
    assert visionlora("eval", detector, "--part", part, "--out", out).code == 0
    assert json.loads(out.read_text())["images"] == images


def test_tiles_can_be_asked_for_when_evaluating_and_another_size_cannot(
    visionlora: Command, detector: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.json"
    assert visionlora("eval", detector, "data.tile=48", "data.tile_overlap=16", "--out", out).code == 0
    assert json.loads(out.read_text())["scores"] != report(detector)["scores"]  # objects look twice as large
    refused = visionlora("eval", detector, "model.size=192")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "model.size is 192, and the detector resizes images to 96 px itself" in refused.err


def test_an_adapters_file_alone_is_enough(visionlora: Command, detector: Path, scenes: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "camera.safetensors"
    shutil.copy(detector / "adapter.safetensors", adapter)
    out = tmp_path / "scores.json"
    settings = (f"data.annotations={scenes}", "data.val={day: [friday]}", "data.workers=0")
    assert visionlora("eval", adapter, *settings, "--out", out).code == 0
    assert json.loads(out.read_text())["scores"] == pytest.approx(report(detector)["scores"], abs=1e-6)


def test_predictions_are_cocos_results_in_the_images_own_pixels(
    visionlora: Command, detector: Path, scenes: Path, tmp_path: Path
) -> None:
    large = tmp_path / "images" / "large.png"
    large.parent.mkdir()
    Image.open(scenes.parent / "01.png").resize((4 * WIDTH, 4 * HEIGHT)).save(large)
    shutil.copy(scenes.parent / "02.png", large.parent)
    out, drawn = tmp_path / "found.json", tmp_path / "drawn"
    outcome = visionlora("predict", detector, large.parent, "--out", out, "--draw", drawn, "--min-score", 0.05)
    assert (outcome.code, outcome.err) == (0, "")
    found = read_results(out)
    trained, pictures = load_trained(detector), {str(path): read_image(path) for path in large.parent.glob("*.png")}
    expected = predict_detections(trained, list(pictures.values()), [0.05, 0.05], torch.device("cpu"))
    assert sum(len(one["boxes"]) for one in expected)
    for path, one in zip(pictures, expected, strict=True):
        results = found.get(path, [])
        assert len(results) == len(one["boxes"])
        for result, box, label in zip(results, one["boxes"].tolist(), one["labels"].tolist(), strict=True):
            x, y, width, height = result["bbox"]
            assert [x, y, x + width, y + height] == pytest.approx(box, abs=0.01)
            assert result["category_id"] == label + 1
    assert max(result["bbox"][0] + result["bbox"][2] for result in found[str(large)]) > WIDTH
    assert {path.name for path in drawn.iterdir()} == {"large.png", "02.png"}
    picture = read_image(drawn / "large.png")
    assert picture.shape == (4 * HEIGHT, 4 * WIDTH, 3)
    assert not np.array_equal(picture, pictures[str(large)])


def test_only_what_reaches_the_thresholds_is_kept(
    visionlora: Command, detector: Path, scenes: Path, tmp_path: Path
) -> None:
    assert visionlora("predict", detector, scenes.parent, "--out", tmp_path / "suggested.json").code == 0
    assert visionlora("predict", detector, scenes.parent, "--out", tmp_path / "all.json", "--min-score", 0).code == 0
    every, kept = (
        [result for results in read_results(tmp_path / f"{name}.json").values() for result in results]
        for name in ("all", "suggested")
    )
    suggested = {name: found["score"] for name, found in report(detector)["thresholds"].items()}
    wanted = [r for r in every if r["score"] >= suggested.get(list(COLOURS)[r["category_id"] - 1], 0.5) - 1e-6]
    assert len(kept) == len(wanted) < len(every)


def test_a_video_is_detected_in_frame_by_frame(
    visionlora: Command, detector: Path, scenes: Path, tmp_path: Path
) -> None:
    clip = tmp_path / "clip.mp4"
    with VideoWriter(clip, 10, (WIDTH, HEIGHT)) as writer:
        for number in (0, 1, 3, 4, 5):
            writer.write(read_image(scenes.parent / f"{number:02}.png"))
    out, drawn = tmp_path / "found.json", tmp_path / "drawn"
    options = ("--out", out, "--draw", drawn, "--every", 2, "--min-score", 0.05)
    outcome = visionlora("predict", detector, clip, *options)
    assert (outcome.code, outcome.err) == (0, "")
    assert set(read_results(out)) <= {f"{clip}#{number}" for number in (0, 2, 4)}
    assert read_results(out)
    frames = VideoFrames(drawn / "clip.mp4")
    assert (frames.width, frames.height, frames.frame_count, frames.fps) == (WIDTH, HEIGHT, 3, 5)


def test_of_several_files_a_bad_video_is_named_and_passed_over(
    visionlora: Command, detector: Path, scenes: Path, tmp_path: Path
) -> None:
    clip, bad, out = tmp_path / "clip.mp4", tmp_path / "bad.mp4", tmp_path / "found.json"
    with VideoWriter(clip, 10, (WIDTH, HEIGHT)) as writer:
        for number in (0, 1, 3):
            writer.write(read_image(scenes.parent / f"{number:02}.png"))
    bad.write_bytes(clip.read_bytes()[:100])
    outcome = visionlora("predict", detector, bad, scenes.parent / "01.png", clip, "--out", out, "--min-score", 0)
    assert (outcome.code, outcome.err) == (1, "")
    assert f"passed over: {bad}: " in outcome.out
    assert outcome.out.rstrip().splitlines()[-1] == f"passed over because they can't be read: {bad}"
    found = {name.partition("#")[0] for name in read_results(out)}
    assert found == {str(scenes.parent / "01.png"), str(clip)}
    alone = visionlora("predict", detector, bad)
    assert (alone.code, alone.err.count("\n")) == (2, 1)


def test_a_merged_detector_is_created_by_the_lines_printed(visionlora: Command, detector: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged.safetensors"
    outcome = visionlora("merge", detector, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    scope: dict[str, Any] = {}
    exec(outcome.out[outcome.out.index("from ") :], scope)
    expected = load_trained(detector).model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in scope["model"].state_dict().items())
    assert load_file(out).keys() == expected.keys()


SETTINGS = {
    "task=detektion": "task is 'detektion' (did you mean 'detection'?); there are classification, detection",
    "train.mixup=0.2": "unknown key 'train.mixup'",
    "data.annotations=null": "no images: give data.annotations",
    "data.annotations={tmp}/none.json": "none.json: no such file",
    "data.train={{day: [mondy]}}": "no image has day 'mondy' (did you mean 'monday'?)",
    "data.train=train": "no image has a field 'part'",
    "data.train={{day: [monday, friday]}}": "data.train and data.val both have",
    "data.leave_out=[rde]": "no class 'rde' to leave out (did you mean 'red'?)",
    "data.leave_out=[red, blue]": "are left out; keep one",
    "data.tile_overlap=-1": "data.tile_overlap is '-1'",
    "model.name=retinanett": "unknown detector 'retinanett' (did you mean 'retinanet'?)",
    "model.backbone=null": "needs a model.backbone",
    "model.size=8": "model.size is 8",
    "model.anchors=fit": "model.anchors=fit needs retinanet",
    "model.anchors=fitt": "model.anchors is 'fitt'",
    "train.monitor=map": "train.monitor is 'map'; choose from mAP, AP50",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_that_cannot_be_used(visionlora: Command, scenes: Path, tmp_path: Path, setting: str) -> None:
    path = tmp_path / "detection.yaml"
    path.write_text(dump_config(make_detection_config(scenes, tmp_path / "run", epochs=1)))
    outcome = visionlora("train", "--config", path, setting.format(tmp=tmp_path))
    assert outcome.code == 2
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    assert SETTINGS[setting] in outcome.err
    assert not (tmp_path / "run").exists()


def test_options_of_the_other_task_are_refused(
    visionlora: Command, detector: Path, trained: Path, scenes: Path, squares: Path, tmp_path: Path
) -> None:
    image = scenes.parent / "01.png"
    assert "--top is for classifiers" in visionlora("predict", detector, image, "--top", 2).err
    assert "--draw is for detectors" in visionlora("predict", trained, image, "--draw", tmp_path / "d").err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert "is not empty" in visionlora("predict", detector, image, "--draw", tmp_path / "full").err
    again = tmp_path / "again" / "01.png"
    again.parent.mkdir()
    shutil.copy(image, again)
    assert "the drawing of several" in visionlora("predict", detector, image, again, "--draw", tmp_path / "d").err
    assert "no video of a known format" in visionlora("predict", detector, scenes).err


@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_what_is_found_becomes_a_data_set_to_correct(
    visionlora: Command, detector: Path, scenes: Path, tmp_path: Path, form: str
) -> None:
    images = tmp_path / "images"
    (images / "night").mkdir(parents=True)
    shutil.copy(scenes.parent / "00.png", images / "night")
    turned = Image.open(scenes.parent / "01.png").convert("RGB")
    exif = Image.Exif()
    exif[274] = 6
    turned.save(images / "turned.jpg", exif=exif, quality=95)
    with VideoWriter(tmp_path / "clip.mp4", 10, (WIDTH, HEIGHT)) as writer:
        for number in (0, 1, 3):
            writer.write(read_image(scenes.parent / f"{number:02}.png"))
    clip = tmp_path / "clip.mp4"
    out, labels = tmp_path / "found.jsonl", tmp_path / "labels"
    options = ("--labels", labels, "--format", form, "--min-score", 0.3, "--out", out)
    outcome = visionlora("predict", detector, images, clip, *options)
    assert (outcome.code, outcome.err) == (0, "")
    expected: dict[str, list[list[float]]] = {}
    for line in out.read_text().splitlines():
        entry = json.loads(line)
        expected.setdefault(Path(entry["image_id"]).name, []).append(entry["bbox"])
    assert sum(map(len, expected.values())) >= 4

    checked = visionlora("check-data", labels / ("annotations.json" if form == "coco" else "data.yaml"))
    assert checked.code == 0 and "no errors" in checked.out
    data = read_annotations(labels / ("annotations.json" if form == "coco" else "data.yaml"))
    assert data.classes == list(COLOURS)
    files = {path.relative_to(labels / "images").as_posix() for path in (labels / "images").rglob("*.*")}
    assert files == {"night/00.png", "turned.png", *(f"clip/{number:06}.jpg" for number in range(3))}
    names = {"00.png": "00.png", "turned.png": "turned.jpg", **{f"{n:06}.jpg": f"clip.mp4#{n}" for n in range(3)}}
    for image in data.images:
        wanted = sorted(expected.get(names[image.path.name], []))
        found = sorted([x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in (thing.box for thing in image.objects))
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert one == pytest.approx(other, abs=0.01)
    assert read_image(labels / "images" / "turned.png").shape == (WIDTH, HEIGHT, 3)


def test_an_interrupted_prediction_leaves_nothing_half_written(
    visionlora: Command, detector: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = Detection.predict, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(Detection, "predict", interrupted)
    options = ("--out", tmp_path / "found.json", "--labels", tmp_path / "labels", "--min-score", 0)
    outcome = visionlora("predict", detector, scenes.parent, *options)
    assert len(calls) == 5 and outcome.code == 130
    assert not list(tmp_path.iterdir())


def test_results_are_one_list_or_a_line_each(visionlora: Command, detector: Path, scenes: Path, tmp_path: Path) -> None:
    for name in ("found.json", "found.jsonl"):
        assert visionlora("predict", detector, scenes.parent, "--out", tmp_path / name, "--min-score", 0.05).code == 0
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert lines and lines == json.loads((tmp_path / "found.json").read_text())
