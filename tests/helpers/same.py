"""Files of tensors that are to be equal."""

from pathlib import Path

import torch
from safetensors.torch import load_file


def assert_same_tensors(first: Path, second: Path) -> None:
    """Bit for bit, under the same names."""
    mine, theirs = load_file(first), load_file(second)
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        assert torch.equal(value, theirs[key]), key
