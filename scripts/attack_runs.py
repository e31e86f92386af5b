"""Attack runs of all three tasks: kill them at random moments, and change bytes of what they left.

python scripts/attack_runs.py --kills 25 --damages 200 --out attacked
python scripts/attack_runs.py --kills 25 --damages 0 --processes 2 --out attacked

A run that was killed with SIGKILL up to three times and resumed must be what one is that was not, byte for byte,
TensorBoard's curves included. Where several processes train it (Linux only), one of them is killed, or all. A file that
was flipped in a bit or cut must be noticed wherever it is read. Exit code 1 if something was not.
"""

import argparse
import sys
from pathlib import Path

from attacks.damages import attack_files
from attacks.kills import attack_runs
from attacks.runs import TASKS


def main(argv: list[str] | None = None) -> int:
    """Print a line for each attack; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new folder; it keeps the runs that failed")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--kills", type=int, default=25, help="runs to kill (%(default)s)")
    parser.add_argument("--damages", type=int, default=200, help="files to damage (%(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="that train each run together (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True)
    failed = attack_runs(arguments.out, arguments.tasks, arguments.kills, arguments.seed, arguments.processes)
    if arguments.damages:
        failed += attack_files(arguments.out, arguments.tasks, arguments.damages, arguments.seed)
    print(f"{failed} of {arguments.kills + arguments.damages} attacks did harm")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
