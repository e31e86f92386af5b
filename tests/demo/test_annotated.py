"""The generated street as a data set with boxes and masks: what is written is what was drawn."""

from pathlib import Path

import numpy as np
from pycocotools import mask as oracle

from visionlora.data.annotations.annotated import RunLengths
from visionlora.data.annotations.layouts import read_annotations
from visionlora.data.annotations.masks import encode
from visionlora.data.annotations.run_lengths import as_coco
from visionlora.data.images import read_image
from visionlora.demo.annotated import THINGS, write_annotated
from visionlora.demo.camera import NIGHT
from visionlora.demo.scenes import CLASSES, make_scene


def test_boxes_masks_and_pixels_are_those_of_the_scenes(tmp_path: Path) -> None:
    data = read_annotations(write_annotated(tmp_path, NIGHT, {"monday": 1, "friday": 2}, seed=5))
    assert data.classes == list(THINGS)
    assert [image.fields["day"] for image in data.images] == ["monday"] * 6 + ["friday"] * 12
    series = [(5, index) for index in range(6)] + [(6, index) for index in range(12)]
    for image, (seed, index) in zip(data.images, series, strict=True):
        scene = make_scene(NIGHT, seed, index)
        assert np.array_equal(read_image(image.path), scene.image)
        assert [thing.box for thing in image.objects] == ([] if scene.box is None else [scene.box])
        for thing in image.objects:
            assert data.classes[thing.label] == CLASSES[scene.label]
            assert isinstance(thing.mask, RunLengths)
            assert np.array_equal(oracle.decode(as_coco(thing.mask)), scene.mask)


def test_run_lengths_are_cocos() -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random((5, 7)) < share for share in (0, 0.1, 0.5, 0.9, 1)]
    for mask in masks:
        code = encode((mask.astype(np.uint8), 0, 0), 7, 5)
        assert (code.height, code.width) == mask.shape
        assert np.array_equal(oracle.decode(as_coco(code)), mask)
