"""Freed memory that is taken again: counted by the pages that the system had to give, in a process of its own."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("resource", reason="without getrusage no pages are counted")

FAULTS = """
import resource, sys
from contextlib import nullcontext
import torch
from visionlora.training.host_memory import freed_memory_kept

def pages():
    for number in range(24):
        if number == 16:  # the first ones end up at other places, for the C library aligns them
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.empty(2**24).fill_(1)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with freed_memory_kept(torch.device(sys.argv[1]), sys.argv[2]):
    print(pages())
print(pages())
"""


def pages(device: str, memory: str = "fast", **environment: str) -> tuple[int, int]:
    """That eight tensors of 64 MiB took anew, within the block and after it."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FAULTS, device, memory]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**plain, **environment})
    within, after = map(int, done.stdout.split())
    return within, after


def test_a_freed_tensor_is_taken_again_while_a_run_goes_on_and_not_after_it() -> None:
    within, after = pages("cpu")
    if pages("meta")[0] < 100:
        pytest.skip("the C library keeps such memory by itself")
    assert within < after / 20


def test_a_run_that_is_to_take_little_gives_it_back() -> None:
    within, after = pages("cpu", "low")
    assert within >= 0.9 * after


def test_the_environment_has_the_last_word() -> None:
    within, after = pages("cpu", MALLOC_MMAP_THRESHOLD_="1000000")
    assert within >= 0.9 * after
