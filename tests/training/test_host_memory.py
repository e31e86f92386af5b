"""Freed memory that is taken again: counted by the pages that the system had to give, in a process of its own."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("resource", reason="without getrusage no pages are counted")

FAULTS = """
import gc, resource, sys
from pathlib import Path
import torch
from visionlora.training.host_memory import freed_memory_kept

def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0

with freed_memory_kept(torch.device(sys.argv[1]), sys.argv[2]):
    for number in range(24):
        if number == 16:  # the first ones end up at other places, for the C library aligns them
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.empty(2**24).fill_(1)  # 64 MiB
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    within = resident()
print(within - resident())
"""


def pages(device: str, memory: str = "fast", **environment: str) -> tuple[int, int]:
    """That eight tensors of 64 MiB took anew within the block, and that its end gave back."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FAULTS, device, memory]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**plain, **environment})
    anew, back = map(int, done.stdout.split())
    return anew, back


@pytest.fixture(scope="module")
def usual() -> int:
    """What they take where nothing is kept."""
    anew, _ = pages("meta")
    if anew < 1000:
        pytest.skip("the C library keeps such memory by itself")
    return anew


def test_a_freed_tensor_is_taken_again_while_a_run_goes_on_and_given_back_at_its_end(usual: int) -> None:
    anew, back = pages("cpu")
    assert anew < usual / 20
    assert back > usual / 16  # half of a tensor


def test_a_run_that_is_to_take_little_keeps_nothing(usual: int) -> None:
    assert pages("cpu", "low")[0] >= 0.9 * usual


def test_the_environment_has_the_last_word(usual: int) -> None:
    assert pages("cpu", MALLOC_MMAP_THRESHOLD_="1000000")[0] >= 0.9 * usual
