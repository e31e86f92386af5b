"""Every command with a segmenter: from masks to scores, masks of new images, and drawn images and videos."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers.segmentation_runs import COLOURS, HEIGHT, WIDTH, make_masks, make_segmentation_config, save
from helpers.squares import Command
from visionlora.config import dump_config
from visionlora.data.images import read_image
from visionlora.data.segmentation.class_map import read_class_map
from visionlora.data.segmentation.mask_files import read_mask
from visionlora.data.video import VideoFrames
from visionlora.data.video_writer import VideoWriter
from visionlora.tasks.segmentation.inference import predict_masks
from visionlora.tasks.trained import load_trained
from visionlora.training.run import train


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_masks(tmp_path_factory.mktemp("scenes"), train=8, val=3)


@pytest.fixture(scope="module")
def segmenter(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder. Not to be changed."""
    settings = {"epochs": 4, "batch_size": 2, "class_weights": "median_frequency"}
    config = make_segmentation_config(scenes, tmp_path_factory.mktemp("segmenter") / "run", **settings)
    return train(config, quiet=True).folder


def images_of(scenes: Path) -> Path:
    return scenes / "val" / "images"


def test_training_says_what_it_does(visionlora: Command, scenes: Path, tmp_path: Path) -> None:
    path = tmp_path / "segmentation.yaml"
    path.write_text(dump_config(make_segmentation_config(scenes, tmp_path / "run", epochs=1)))
    outcome = visionlora("train", "--config", path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "fpn over test_resnet on 8 images of 3 classes, 3 to validate" in outcome.out
    assert "epoch 1/1  mIoU" in outcome.out


def test_evaluating_a_run_gives_the_scores_of_its_report(visionlora: Command, segmenter: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    outcome = visionlora("eval", segmenter, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    found, expected = json.loads(out.read_text()), json.loads((segmenter / "report.json").read_text())
    assert found["images"] == 3
    assert found["scores"] == pytest.approx(expected["scores"], abs=1e-6)
    assert found["confusion"] == expected["confusion"]
    assert "IoU" in outcome.out and "pixels" in outcome.out and "pixel_accuracy" in outcome.out


@pytest.mark.parametrize(("part", "images"), [("train", 8), ("val", 3)])
def test_any_part_can_be_evaluated(
    visionlora: Command, segmenter: Path, tmp_path: Path, part: str, images: int
) -> None:
    out = tmp_path / "scores.json"
    assert visionlora("eval", segmenter, "--part", part, "--out", out).code == 0
    assert json.loads(out.read_text())["images"] == images


def test_an_adapters_file_alone_is_enough(visionlora: Command, segmenter: Path, scenes: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "camera.safetensors"
    shutil.copy(segmenter / "adapter.safetensors", adapter)
    settings = (f"data.root={scenes}", f"data.classes={scenes / 'classes.yaml'}", "data.workers=0")
    out = tmp_path / "scores.json"
    assert visionlora("eval", adapter, *settings, "--out", out).code == 0
    expected = json.loads((segmenter / "report.json").read_text())["scores"]
    assert json.loads(out.read_text())["scores"] == pytest.approx(expected, abs=1e-6)
    assert "are not the model's" in visionlora("eval", adapter, *settings[::2], f"data.classes={other(tmp_path)}").err


def test_a_run_can_be_evaluated_at_another_size_and_in_windows(
    visionlora: Command, segmenter: Path, tmp_path: Path
) -> None:
    out, found = tmp_path / "scores.json", {}
    for name, settings in {
        "whole": (),
        "large": ("model.size=150",),
        "windows": ("data.window=48", "data.window_overlap=8"),
    }.items():
        assert visionlora("eval", segmenter, *settings, "--out", out).code == 0
        found[name] = json.loads(out.read_text())["scores"]["pixel_accuracy"]
    assert len(set(found.values())) == 3
    assert "can't overlap by 48 px" in visionlora("eval", segmenter, "data.window=48", "data.window_overlap=48").err


def other(folder: Path) -> Path:
    path = folder / "other.yaml"
    path.write_text("[ground, red, blue, green]")
    return path


def test_masks_are_written_as_those_that_were_trained_on(
    visionlora: Command, segmenter: Path, scenes: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    (folder / "night").mkdir(parents=True)
    shutil.copy(images_of(scenes) / "00.png", folder / "night")
    Image.open(images_of(scenes) / "01.png").resize((3 * WIDTH, 2 * HEIGHT)).save(folder / "large.png")
    masks, drawn, out = tmp_path / "masks", tmp_path / "drawn", tmp_path / "shares.json"
    outcome = visionlora("predict", segmenter, folder, "--masks", masks, "--draw", drawn, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    class_map, trained = read_class_map(scenes / "classes.yaml"), load_trained(segmenter)
    shares = {Path(entry["image"]).name: entry["shares"] for entry in json.loads(out.read_text())}
    for name in ("night/00.png", "large.png"):
        picture = read_image(folder / name)
        expected = predict_masks(trained, [picture], torch.device("cpu"))[0]
        assert np.array_equal(read_mask(masks / name, class_map), expected)
        assert np.array_equal(read_image(masks / name), np.array(list(COLOURS.values()), np.uint8)[expected])
        assert read_image(drawn / name).shape == picture.shape
        assert not np.array_equal(read_image(drawn / name), picture)
        counts = np.bincount(expected.ravel(), minlength=3) / expected.size
        assert shares[Path(name).name] == {n: c for n, c in zip(COLOURS, counts, strict=True) if c}
    assert "ground" in outcome.out and "%" in outcome.out
    assert f"masks written into {masks}" in " ".join(outcome.out.split())


def test_a_video_becomes_masks_of_its_frames_and_a_video(
    visionlora: Command, segmenter: Path, scenes: Path, tmp_path: Path
) -> None:
    clip = tmp_path / "clip.mp4"
    pictures = [read_image(path) for path in sorted((scenes / "train" / "images").iterdir())[:5]]
    with VideoWriter(clip, 10, (WIDTH, HEIGHT)) as writer:
        for picture in pictures:
            writer.write(picture)
    masks, drawn, out = tmp_path / "masks", tmp_path / "drawn", tmp_path / "shares.json"
    outcome = visionlora("predict", segmenter, clip, "--masks", masks, "--draw", drawn, "--out", out, "--every", 2)
    assert (outcome.code, outcome.err) == (0, "")
    assert {path.relative_to(masks).as_posix() for path in masks.rglob("*.png")} == {
        f"clip/{number:06}.png" for number in (0, 2, 4)
    }
    shown = [frame.image for frame in VideoFrames(clip, 2)]
    expected = predict_masks(load_trained(segmenter), shown, torch.device("cpu"))
    for number, mask in zip((0, 2, 4), expected, strict=True):
        written = read_mask(masks / "clip" / f"{number:06}.png", read_class_map(scenes / "classes.yaml"))
        assert np.array_equal(written, mask)
    shares = [(mask == 0).mean() for mask in expected]
    assert max(shares) - min(shares) > 0.002
    assert f"ground {np.mean(shares):.1%}" in " ".join(outcome.out.split())
    frames = VideoFrames(drawn / "clip.mp4")
    assert (frames.width, frames.height, frames.frame_count, frames.fps) == (WIDTH, HEIGHT, 3, 5)
    assert [entry["image"] for entry in json.loads(out.read_text())] == [f"{clip}#{number}" for number in (0, 2, 4)]


def test_a_merged_segmenter_is_created_by_the_lines_printed(
    visionlora: Command, segmenter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged.safetensors"
    outcome = visionlora("merge", segmenter, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    scope: dict[str, Any] = {}
    exec(outcome.out[outcome.out.index("from ") :], scope)
    expected = load_trained(segmenter).model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in scope["model"].state_dict().items())
    assert load_file(out).keys() == expected.keys()
    again = load_trained(out)
    assert (again.task, again.classes) == ("segmentation", list(COLOURS))


SETTINGS = {
    "task=segmentatoin": "task is 'segmentatoin' (did you mean 'segmentation'?)",
    "data.tile=32": "unknown key 'data.tile'",
    "train.los.dice=1": "unknown key 'train.los' (did you mean 'train.loss'?)",
    "train.loss.dyce=1": "unknown loss 'dyce' (did you mean 'dice'?)",
    "train.loss=dice": "train.loss is 'dice'",
    "train.class_weights=balanced": "train.class_weights is 'balanced'",
    "data.root={tmp}/none": "none: no such folder",
    "data.train=trian": "no part trian with masks (did you mean 'train'?)",
    "data.crop=1": "the images' crop is to be 1 px",
    "data.window_overlap=8": "there are no windows",
    "data.window=0": "data.window is '0'",
    "model.name=unnet": "unknown segmenter 'unnet' (did you mean 'unet'?)",
    "model.backbone=test_vit": "model fpn does not fit test_vit",
    "model.channels=20": "model.channels is 20",
    "train.monitor=mAP": "train.monitor is 'mAP'; choose from mIoU",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_that_cannot_be_used(visionlora: Command, scenes: Path, tmp_path: Path, setting: str) -> None:
    path = tmp_path / "segmentation.yaml"
    path.write_text(dump_config(make_segmentation_config(scenes, tmp_path / "run", {"checkpoint": None}, epochs=1)))
    outcome = visionlora("train", "--config", path, "model.pretrained=false", setting.format(tmp=tmp_path))
    assert outcome.code == 2
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    assert SETTINGS[setting] in outcome.err
    assert not (tmp_path / "run").exists()


def test_options_that_cannot_be_meant(
    visionlora: Command, segmenter: Path, trained: Path, scenes: Path, tmp_path: Path
) -> None:
    image = images_of(scenes) / "00.png"
    assert "--top is for classifiers" in visionlora("predict", segmenter, image, "--top", 2).err
    assert "--min-score is for detectors" in visionlora("predict", segmenter, image, "--min-score", 0.5).err
    outcome = visionlora("predict", trained, image, "--masks", tmp_path / "m")
    assert f"--masks is for segmenters, and {trained} is a classifier" in outcome.err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert "--masks" in visionlora("predict", segmenter, image, "--masks", tmp_path / "full").err
    again = tmp_path / "again" / "00.png"
    again.parent.mkdir()
    shutil.copy(image, again)
    for option, what in (("--masks", "mask"), ("--draw", "drawing")):
        assert f"the {what} of several" in visionlora("predict", segmenter, image, again, option, tmp_path / "d").err
    assert not (tmp_path / "d").exists()


def test_check_data_tells_the_shares_of_classes(visionlora: Command, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    outcome = visionlora("check-data", scenes, "--classes", scenes / "classes.yaml", "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    text, report = " ".join(outcome.out.split()), json.loads(out.read_text())
    assert f"masks, 11 images (train 8, val 3), {3 / HEIGHT:.1%} of the pixels ignored" in text
    assert f"image sizes in pixels: 11 of {WIDTH} x {HEIGHT}" in text
    assert "class pixels share images train val" in text
    assert "no errors: training takes this" in text
    assert [part["name"] for part in report["parts"]] == ["train", "val"]
    train = report["parts"][0]
    assert train["ignored_pixels"] == 8 * 3 * WIDTH
    assert train["pixels"] == 8 * (HEIGHT - 3) * WIDTH == sum(found["pixels"] for found in train["classes"].values())
    assert train["classes"]["ground"]["images"] == 8


@pytest.mark.parametrize(("part", "code"), [("val", 0), ("train", 1)])
def test_one_class_is_enough_to_validate_on(
    visionlora: Command, scenes: Path, tmp_path: Path, part: str, code: int
) -> None:
    root = tmp_path / "set"
    shutil.copytree(scenes, root)
    for mask in (root / part / "masks").iterdir():
        save(mask, np.full((HEIGHT, WIDTH), 3, np.uint8))
    outcome = visionlora("check-data", root, "--classes", root / "classes.yaml")
    assert (outcome.code, "only 'ground' occurs" in " ".join(outcome.out.split())) == (code, bool(code))


def test_check_data_names_what_is_wrong_with_masks(visionlora: Command, scenes: Path, tmp_path: Path) -> None:
    shutil.copytree(scenes / "train", tmp_path / "set")
    images, masks = tmp_path / "set" / "images", tmp_path / "set" / "marks"
    (tmp_path / "set" / "masks").rename(masks)
    for path in list(masks.iterdir()):
        path.rename(path.with_name(f"{path.stem}_m.png"))
    save(masks / "00_m.png", np.full((HEIGHT, WIDTH), 5, np.uint8))
    save(masks / "01_m.png", np.full((8, 8), 3, np.uint8))
    (masks / "02_m.png").unlink()
    options = ("--masks", masks, "--suffix", "_m")
    outcome = visionlora("check-data", images, *options, "--classes", scenes / "classes.yaml")
    assert outcome.code == 1
    text = " ".join(outcome.out.split())
    assert "errors: training refuses these (3)" in text
    for words in ("value 5 (in 5580 pixels) of no class", "has 8 x 8, and 01.png 90 x 62", "no mask '02_m'"):
        assert words in text
    assert text.endswith("to write a mended copy: --fix FOLDER")
    assert "no file that names their classes" in visionlora("check-data", images, *options).err
    refused = visionlora("check-data", images, *options, "--classes", scenes / "classes.yaml", "--root", images)
    assert (refused.code, "without --root" in refused.err) == (2, True)


def spoil_size(mask: Path) -> None:
    save(mask, np.full((HEIGHT, WIDTH - 1), 3, np.uint8))


def spoil_value(mask: Path) -> None:
    save(mask, np.full((HEIGHT, WIDTH), 4, np.uint8))


def spoil_color(mask: Path) -> None:
    save(mask, np.full((HEIGHT, WIDTH, 3), 77, np.uint8))


def spoil_wide_value(mask: Path) -> None:
    save(mask, np.full((HEIGHT, WIDTH), 700, np.uint16))


def spoil_all(mask: Path) -> None:
    for path in mask.parent.iterdir():
        save(path, np.full((HEIGHT, WIDTH), 7, np.uint8))


BAD_MASKS: dict[str, Any] = {
    "has 89 x 62, and 01.png 90 x 62; save it in the size of the image": spoil_size,
    "value 4 (in 5580 pixels) of no class": spoil_value,
    "color (77, 77, 77) (in 5580 pixels) of no class": spoil_color,
    "value 700 (in 5580 pixels) of no class": spoil_wide_value,
    "no mask '01' in": Path.unlink,
    "can't be decoded": lambda mask: mask.write_bytes(mask.read_bytes()[:60]),
    "only 'red' occurs in 8 masks": spoil_all,
}


@pytest.mark.parametrize("words", BAD_MASKS)
def test_training_refuses_bad_masks_in_a_line(visionlora: Command, scenes: Path, tmp_path: Path, words: str) -> None:
    root = tmp_path / "set"
    shutil.copytree(scenes, root)
    BAD_MASKS[words](root / "train" / "masks" / "01.png")
    path = tmp_path / "segmentation.yaml"
    path.write_text(dump_config(make_segmentation_config(root, tmp_path / "run", epochs=1)))
    outcome = visionlora("train", "--config", path)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    assert words in outcome.err
    assert "visionlora check-data" in outcome.err
    assert not (tmp_path / "run").exists()


def test_colour_masks_need_colours(visionlora: Command, scenes: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(scenes, root)
    save(root / "train" / "masks" / "01.png", np.full((HEIGHT, WIDTH, 3), (1, 2, 3), np.uint8))
    (root / "classes.yaml").write_text(
        "classes: [{name: a, value: 3}, {name: b, value: 7}, {name: c, value: 1}]\nignore: 9"
    )
    path = tmp_path / "segmentation.yaml"
    path.write_text(dump_config(make_segmentation_config(root, tmp_path / "run", epochs=1)))
    assert "is a colour picture; give each class its color" in visionlora("train", "--config", path).err


def test_an_ignored_image_and_16_bit_masks_train(visionlora: Command, scenes: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(scenes, root)
    masks = sorted((root / "train" / "masks").iterdir())
    save(masks[0], np.full((HEIGHT, WIDTH), 9, np.uint8))
    for mask in masks[1:]:
        save(mask, np.asarray(Image.open(mask)).astype(np.uint16))
    path = tmp_path / "segmentation.yaml"
    loss = {"cross_entropy": 1, "dice": 1, "focal": 1}
    config = make_segmentation_config(root, tmp_path / "run", epochs=1, batch_size=1, loss=loss)
    path.write_text(dump_config(config))
    outcome = visionlora("train", "--config", path)
    assert (outcome.code, outcome.err) == (0, "")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert 0 in [line["loss"] for line in lines if line["kind"] == "train"]
