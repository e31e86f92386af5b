"""``scripts/benchmark.py sharding`` counts what processes hold of a base."""

import argparse
import importlib
from pathlib import Path

import pytest
import torch.distributed as dist

from benchmarks.sharding import COLUMNS, _measured, add_arguments
from helpers.processes import exit_codes, start_processes
from visionlora.training.distributed import joined


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")
def test_a_process_keeps_its_part_and_gathers_a_block(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args(["--classes", "3", "--rank", "2", "--size", "32", "--batch", "2", "--steps", "1"])

    importlib.import_module("torch.distributed.fsdp")  # before the processes are forked, for it takes seconds

    def work(rank: int) -> None:
        with joined() as processes:
            found = _measured("test_resnet", arguments, processes)
            row = found.row("test_resnet")
            assert len(row) == len(COLUMNS) and row[:2] == ["test_resnet", "5"]
            assert found.whole / 2 < found.kept < 0.52 * found.whole  # its norms are whole
            assert found.kept < found.most < 1.25 * found.whole  # its last block has more than half of the weights
            assert found.difference < 1e-5 and [len(times) for times in found.steps] == [1, 1]
            (tmp_path / str(rank)).touch()

    assert exit_codes(start_processes(2, work)) == [0, 0]
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}
