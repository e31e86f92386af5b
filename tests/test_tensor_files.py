"""Files of tensors: equal content is equal bytes, and they hold their own hash."""

import errno
import json
import os
import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from visionlora.checksums import FIELD, file_digest, refuse_damaged, stamp
from visionlora.errors import InputError
from visionlora.tensor_files import _NAMES, write_tensors

METADATA = {"format": "pt", "größe": 'a "quoted"\n\x07 line', "b": "", "a": "1"}


def some_tensors() -> dict[str, torch.Tensor]:
    tensors = {str(dtype): torch.arange(6).to(dtype).reshape(2, 3) for dtype in _NAMES}
    empty, scalar = torch.empty(0, 4), torch.tensor(2.5)
    return tensors | {"empty": empty, "scalar": scalar, "strided": torch.arange(12.0).reshape(3, 4).T, "Z": scalar}


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    write_tensors(some_tensors(), tmp_path / "a", METADATA)
    found = load_file(tmp_path / "a")
    assert found.keys() == some_tensors().keys()
    for key, tensor in some_tensors().items():
        assert (found[key].dtype, found[key].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[key], tensor), key
    with safe_open(tmp_path / "a", "pt") as file:
        metadata = file.metadata()
    assert metadata.pop(FIELD).startswith("visionlora-sha256:")
    assert metadata == METADATA


def test_every_tensor_is_aligned(tmp_path: Path) -> None:
    write_tensors(some_tensors(), tmp_path / "a", METADATA)
    content = (tmp_path / "a").read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    assert end % 8 == 0
    for key, entry in json.loads(content[8:end]).items():
        if key != "__metadata__":
            assert entry["data_offsets"][0] % some_tensors()[key].element_size() == 0, key


def test_the_order_of_what_is_given_does_not_count(tmp_path: Path) -> None:
    write_tensors(some_tensors(), tmp_path / "a", METADATA)
    write_tensors(dict(reversed(some_tensors().items())), tmp_path / "b", dict(reversed(METADATA.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b")


def test_every_byte_counts(tmp_path: Path) -> None:
    write_tensors({"a": torch.ones(3), "b": torch.zeros(2)}, tmp_path / "a", METADATA)
    refuse_damaged(tmp_path / "a", METADATA | {FIELD: ""})
    content = (tmp_path / "a").read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << random.Random(place).randrange(8)
        (tmp_path / "a").write_bytes(damaged)
        with pytest.raises(InputError, match="a: is damaged"):
            refuse_damaged(tmp_path / "a", METADATA | {FIELD: ""})


def test_a_file_without_a_hash_is_taken_and_one_that_lost_it_is_not(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "a", METADATA)
    refuse_damaged(tmp_path / "a", METADATA)
    with pytest.raises(InputError, match="is damaged"):
        refuse_damaged(tmp_path / "a", [*METADATA, FIELD])
    with pytest.raises(AssertionError, match="no place"):
        stamp(tmp_path / "a")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_full_disk_is_named() -> None:
    with pytest.raises(OSError, match="/dev/full") as error:
        write_tensors({"a": torch.ones(1 << 16)}, Path("/dev/full"))
    assert error.value.errno == errno.ENOSPC


def test_the_umask_says_who_may_read(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_tensors({"a": torch.ones(3)}, tmp_path / "a")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
