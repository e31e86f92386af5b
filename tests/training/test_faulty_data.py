"""A run past single faults: what was left out is told, counted and listed."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from helpers.detection_runs import make_detection_config, make_scenes
from helpers.segmentation_runs import make_masks, make_segmentation_config
from visionlora.data.segmentation.class_map import read_class_map
from visionlora.errors import InputError
from visionlora.tasks.registry import task_of
from visionlora.training.run import train


def test_a_run_past_faults_tells_and_lists_them(tmp_path: Path) -> None:
    path = make_scenes(tmp_path / "scenes")
    document = json.loads(path.read_text())
    document["annotations"][0]["bbox"][2] = 0
    document["images"][5]["width"] += 1
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="2 faults"):
        train(make_detection_config(path, tmp_path / "refused", epochs=1))
    said = io.StringIO()
    config = make_detection_config(path, tmp_path / "run", data={"faulty": "leave_out"}, epochs=1)
    result = train(config, console=Console(file=said, width=200))
    assert "on 11 images" in said.getvalue()
    assert "2 faults of the annotations mended or left out (all are in report.json):" in said.getvalue()
    listed = json.loads((tmp_path / "run" / "report.json").read_text())["faulty"]
    assert listed == result.faulty
    assert sorted(line.rpartition(" -> ")[2] for line in listed) == ["annotation dropped", "image left out"]


@pytest.mark.parametrize("part", ["", "val", "all"])
def test_an_evaluation_past_faults_lists_them_too(tmp_path: Path, part: str) -> None:
    path = make_scenes(tmp_path / "scenes")
    document = json.loads(path.read_text())
    document["images"][-1]["width"] += 1
    path.write_text(json.dumps(document))
    boxes = make_detection_config(path, tmp_path / "run", data={"faulty": "leave_out"})
    chosen = task_of("detection").images(boxes, part, [one["name"] for one in document["categories"]])
    (fault,) = chosen.faulty
    assert "annotated as" in fault and fault.endswith("-> image left out")
    root = make_masks(tmp_path / "masks", train=4, val=3)
    (mask,) = sorted((root / "val" / "masks").iterdir())[:1]
    mask.unlink()
    masks = make_segmentation_config(root, tmp_path / "run", data={"faulty": "leave_out"})
    if part == "all":
        masks = masks.model_copy(update={"data": masks.data.model_copy(update={"root": root / "val"})})
    names = list(read_class_map(root / "classes.yaml").names)
    chosen = task_of("segmentation").images(masks, part, names)
    assert (len(chosen.data), [mask.stem in line for line in chosen.faulty]) == (2, [True])


def test_a_run_takes_a_list_of_files(tmp_path: Path) -> None:
    """As on the command line: data.annotations=[train.json,val.json]."""
    paths = []
    for part, images in (("train", 8), ("val", 4)):
        path = make_scenes(tmp_path / part, train=images, val=0)
        paths.append(str(path.rename(path.with_name(f"{part}.json"))))
    data = {"annotations": paths, "train": None, "val": None}
    result = train(make_detection_config(Path(), tmp_path / "run", data=data, epochs=1))
    assert result.faulty == []
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert all(path in config for path in paths)
