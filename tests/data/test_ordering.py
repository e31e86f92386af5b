"""Orders of an epoch: rare classes more often, similar shapes side by side, nothing lost."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from visionlora.data.annotations.annotated import AnnotatedImage, AnnotatedImages, LabelledObject
from visionlora.data.loading import batches, epoch_order
from visionlora.data.ordering import aspect_ratios, classes_shown, group_by_shape, repeat_factor_order


def test_images_with_rare_classes_come_by_their_repeat_factor() -> None:
    labels = [{0}] * 160 + [{0, 1}] * 30 + [{0, 2}] * 4 + [()] * 6
    orders = [repeat_factor_order(labels, 4, seed=0, epoch=epoch, threshold=0.3) for epoch in range(400)]
    drawn = Counter(index for order in orders for index in order)
    share = {0: 194 / 200, 1: 30 / 200, 2: 4 / 200}
    factor = {name: max(1.0, math.sqrt(0.3 / f)) for name, f in share.items()}
    assert factor[0] == 1
    whole = 0.0
    for index, classes in enumerate(labels):
        expected = max((factor[name] for name in classes), default=1.0)
        whole += expected
        assert drawn[index] / 400 == pytest.approx(expected, rel=0.07)
        assert all(math.floor(expected) <= Counter(order)[index] <= math.ceil(expected + 0.01) for order in orders[:5])
    assert {len(order) for order in orders} == {round(whole)}


def test_few_images_come_by_their_factor_too() -> None:
    """Factors 1, 1, sqrt(3), and four draws, their sum rounded."""
    drawn = Counter(
        index for epoch in range(3000) for index in repeat_factor_order([{0}, {0}, {0, 1}], 2, 0, epoch, 1.0)
    )
    factors = np.array([1, 1, math.sqrt(3)])
    assert np.allclose([drawn[i] / 3000 for i in range(3)], 4 * factors / factors.sum(), atol=0.04)


def test_the_repeated_order_follows_from_seed_and_epoch_and_is_mixed() -> None:
    labels = [{0}] * 40 + [{1}] * 2
    assert repeat_factor_order(labels, 2, 1, 2, 0.5) == repeat_factor_order(labels, 2, 1, 2, 0.5)
    assert (
        len({tuple(repeat_factor_order(labels, 2, seed, epoch, 0.5)) for seed in range(3) for epoch in range(3)}) == 9
    )
    orders = [repeat_factor_order(labels, 2, 0, epoch, 0.5) for epoch in range(50)]
    apart = [np.diff([place for place, index in enumerate(order) if index == 41]).tolist() for order in orders]
    assert max(max(gaps, default=0) for gaps in apart) > 5  # not one after the other
    places = [order.index(41) for order in orders]
    assert min(places) < 8
    assert max(places) > 25


def test_without_rare_classes_every_image_comes_once() -> None:
    labels: list[set[int]] = [{0, 1}, {1}, {0}, set(), {0, 1}] * 20
    assert sorted(repeat_factor_order(labels, 2, 3, 4, threshold=0.5)) == list(range(100))
    assert repeat_factor_order([], 2, 0, 0, 0.5) == []
    assert sorted(repeat_factor_order([set(), set()], 2, 0, 0, 0.5)) == [0, 1]


SHAPES = [16 / 9, 4 / 3, 3 / 2, 1.0, 3 / 4, 9 / 16, 1.77, 0.5625]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("n", [0, 1, 7, 64, 203])
def test_grouped_batches_hold_every_image_once_and_similar_shapes(n: int, batch_size: int) -> None:
    generator = np.random.default_rng(n)
    ratios = generator.choice(SHAPES, n).tolist()
    for epoch in range(3):
        order = epoch_order(n, 5, epoch)
        grouped = group_by_shape(order, ratios, batch_size, 5, epoch)
        assert sorted(grouped) == sorted(order)
        cut = batches(grouped, epoch, batch_size, drop_last=False)
        assert len(cut) == -(-n // batch_size)
        shapes = [[ratios[index] for _, index in batch] for batch in cut]
        mixed = sum(max(batch) / min(batch) > math.sqrt(2) for batch in shapes)
        assert mixed <= 5  # what is left over of five shapes: 16:9, 4:3 with 3:2, 1:1, 3:4, 9:16


def test_landscape_and_portrait_meet_in_one_batch_at_most() -> None:
    ratios = [16 / 9, 9 / 16] * 33
    for epoch in range(20):
        grouped = group_by_shape(epoch_order(66, 0, epoch), ratios, 4, 0, epoch)
        cut = batches(grouped, epoch, 4, drop_last=False)
        assert sum(len({ratios[index] for _, index in batch}) == 2 for batch in cut) <= 1
        assert [len(batch) for batch in cut] == [4] * 16 + [2]


def test_grouped_batches_are_shuffled_by_seed_and_epoch() -> None:
    ratios = [16 / 9] * 40 + [9 / 16] * 40
    grouped = [tuple(group_by_shape(epoch_order(80, 0, 0), ratios, 4, 0, epoch)) for epoch in range(5)]
    assert len(set(grouped)) == 5
    assert grouped[0] == tuple(group_by_shape(epoch_order(80, 0, 0), ratios, 4, 0, 0))
    landscape_first = [sum(index < 40 for index in order[:40]) for order in grouped]
    assert 8 <= min(landscape_first) <= max(landscape_first) <= 32


def test_within_a_shape_the_order_holds_and_repeats_are_kept() -> None:
    order = [3, 1, 2, 1, 0, 1]
    assert group_by_shape(order, [1.0] * 4, 6, 0, 0) == order
    assert sorted(group_by_shape(order, [1.0, 2.0, 1.0, 2.0], 2, 0, 0)) == sorted(order)
    assert batches(group_by_shape(order, [1.0] * 4, 6, 0, 0), 0, 6, False) == batches(order, 0, 6, False)


def test_shapes_and_classes_are_read_from_the_annotations() -> None:
    crowd = LabelledObject(2, (0, 0, 5, 5), crowd=True)
    things = (LabelledObject(1, (0, 0, 5, 5)), LabelledObject(1, (2, 0, 5, 5)), crowd)
    data = AnnotatedImages(
        [AnnotatedImage(Path("a"), 40, 20, things), AnnotatedImage(Path("b"), 30, 60)], ["a", "b", "c"]
    )
    assert aspect_ratios(data) == [2, 0.5]
    assert classes_shown(data) == [{1}, set()]
