"""The script that attacks runs, in its short form: one run is killed, and a few files of each kind are damaged."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "attack_runs.py"


def test_a_killed_run_is_the_same_and_damages_are_noticed(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--out", tmp_path / "out", "--tasks", "classification", "--seed", "1"]
    done = subprocess.run([*command, "--kills", "1", "--damages", "33"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "s: the same" in done.stdout
    assert done.stdout.count("3 of 3 noticed") == 7
    assert done.stdout.count("6 of 6 noticed") == 2  # of a timm folder, which is read in two ways
    assert "0 of 34 attacks did harm" in done.stdout
