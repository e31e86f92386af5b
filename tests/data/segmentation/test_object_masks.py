"""Objects drawn as class masks: COCO's own drawing, later over earlier."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from helpers.coloured import draw, labels_of
from visionlora.data.annotations.annotated import AnnotatedImage, AnnotatedImages, LabelledObject, Polygons
from visionlora.data.segmentation.class_map import IGNORE
from visionlora.data.segmentation.object_masks import class_mask, segment_objects
from visionlora.errors import InputError

SQUARE = Polygons(((2, 2, 12, 2, 12, 12, 2, 12),))
LOWER = Polygons(((6, 6, 16, 6, 16, 16, 6, 16),))


def data_of(*objects: LabelledObject, width: int = 20, height: int = 18) -> AnnotatedImages:
    return AnnotatedImages([AnnotatedImage(Path("a.png"), width, height, objects, {"day": 1})], ["car", "van"])


def thing(label: int, mask: Polygons | None, crowd: bool = False) -> LabelledObject:
    return LabelledObject(label, (2, 2, 12, 12), mask, crowd)


@pytest.mark.parametrize("kind", ["polygon", "run lengths"])
def test_objects_lie_where_their_pixels_are(kind: str) -> None:
    picture = draw(np.random.default_rng(3), 300, 200, "rectangle", kind)
    data = AnnotatedImages([AnnotatedImage(Path("a.png"), 300, 200, tuple(picture.objects))], list("abcdef"))
    truth = labels_of(picture.image)
    truth = np.where(truth < len(picture.objects), truth + 1, 0)
    segmented = segment_objects(data)
    assert segmented.classes == ["background", *"abcdef"]
    assert np.array_equal(class_mask(segmented, 0), truth)
    assert segmented.counts() == np.bincount(truth.ravel(), minlength=7).tolist()


def test_polygons_are_drawn_as_coco_draws_them() -> None:
    ring = (1.3, 2.2, 15.7, 4.9, 9.1, 15.2)
    mask = class_mask(segment_objects(data_of(thing(1, Polygons((ring,))))), 0)
    theirs = coco.decode(coco.frPyObjects([list(ring)], 18, 20))[..., 0]
    assert np.array_equal(mask == 2, theirs > 0)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_later_objects_lie_over_earlier_ones(order: tuple[int, int]) -> None:
    objects = [thing(0, SQUARE), thing(1, LOWER)]
    mask = class_mask(segment_objects(data_of(*(objects[i] for i in order))), 0)
    assert mask[8, 8] == order[1] + 1
    assert (mask[3, 3], mask[14, 14], mask[0, 0]) == (1, 2, 0)


def test_without_a_background_what_no_object_covers_is_ignored() -> None:
    segmented = segment_objects(data_of(thing(0, SQUARE), thing(1, LOWER)), background=None)
    mask = class_mask(segmented, 0)
    assert segmented.classes == ["car", "van"]
    assert (mask[3, 3], mask[14, 14], mask[0, 0]) == (0, 1, IGNORE)
    assert sum(segmented.counts()) == 100 + 100 - 36
    assert segmented.images[0].fields == {"day": 1}


def test_a_crowd_counts_where_its_mask_is_and_is_ignored_where_only_its_box_is() -> None:
    with_mask = class_mask(segment_objects(data_of(thing(1, SQUARE, crowd=True))), 0)
    assert (with_mask[3, 3], with_mask[14, 14]) == (2, 0)
    box_only = class_mask(segment_objects(data_of(thing(1, None, crowd=True))), 0)
    assert set(np.unique(box_only[2:12, 2:12])) == {IGNORE}
    assert (box_only != IGNORE).sum() == 20 * 18 - 100


def test_what_can_not_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="an object has no mask"):
        segment_objects(data_of(thing(0, None)))
    with pytest.raises(InputError, match="there is a class 'car' already"):
        segment_objects(data_of(thing(0, SQUARE)), background="car")
    single = replace(data_of(thing(0, SQUARE)), classes=["car"])
    assert segment_objects(single).classes == ["background", "car"]
    with pytest.raises(InputError, match=r"1 classes \(car\)"):
        segment_objects(single, background=None)
