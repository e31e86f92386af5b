"""Masks that are written are read as the same classes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.mask_sets import COLORS, labels
from visionlora.data.segmentation.class_map import ClassEntry, make_class_map
from visionlora.data.segmentation.mask_files import read_mask, write_mask


@pytest.mark.parametrize("values", [[0, 1, 2], [7, 255, 0], [300, 5, 40000]])
def test_a_written_mask_is_read_as_it_was(tmp_path: Path, values: list[int]) -> None:
    class_map = make_class_map([ClassEntry(f"class {value}", value) for value in values], ignore=[9])
    assert class_map.class_values() == values
    path = tmp_path / "new" / "mask.png"
    write_mask(path, labels(3), values, COLORS)
    assert np.array_equal(read_mask(path, class_map), labels(3))
    with Image.open(path) as image:
        if max(values) < 256:
            assert image.mode == "P"
            assert np.array_equal(np.asarray(image.convert("RGB")), np.array(COLORS, np.uint8)[labels(3)])
        else:
            assert image.mode.startswith("I")
    assert [file.name for file in path.parent.iterdir()] == ["mask.png"]
