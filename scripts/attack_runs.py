"""Attack runs of all three tasks: kill them at random moments, and change bytes of what they left.

python scripts/attack_runs.py --kills 25 --damages 200 --out attacked
python scripts/attack_runs.py --kills 25 --damages 0 --processes 2 --out attacked
python scripts/attack_runs.py --kills 0 --damages 0 --fleet-kills 20 --out attacked

A run that was killed with SIGKILL up to three times and resumed must be what one is that was not, byte for byte,
TensorBoard's curves included. Where several processes train it (Linux only), one of them is killed, or all. A file that
was flipped in a bit or cut must be noticed wherever it is read. A fleet's folder whose writers are killed must be whole
after each kill. Exit code 1 if something was not.
"""

import argparse
import sys
from pathlib import Path

import timm
import torch

import visionlora as vl
from attacks.damages import attack_files
from attacks.fleets import attack_fleet
from attacks.kills import attack_runs
from attacks.runs import TASKS
from visionlora.fleet.index import read_index


def main(argv: list[str] | None = None) -> int:
    """Print a line for each attack; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new folder; it keeps the runs that failed")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--kills", type=int, default=25, help="runs to kill (%(default)s)")
    parser.add_argument("--damages", type=int, default=200, help="files to damage (%(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="that train each run together (%(default)s)")
    parser.add_argument("--fleet-kills", type=int, default=0, help="writers of a fleet's folder to kill (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True)
    failed = 0
    if arguments.kills:
        failed += attack_runs(arguments.out, arguments.tasks, arguments.kills, arguments.seed, arguments.processes)
    if arguments.damages:
        failed += attack_files(arguments.out, arguments.tasks, arguments.damages, arguments.seed)
    if arguments.fleet_kills:
        failed += attack_fleets(arguments.out, arguments.fleet_kills, arguments.seed)
    print(f"{failed} of {arguments.kills + arguments.damages + arguments.fleet_kills} attacks did harm")
    return int(failed > 0)


def attack_fleets(out: Path, kills: int, seed: int) -> int:
    """Of a small model's adapters; how many kills did harm."""
    model = timm.create_model("test_resnet", num_classes=3)
    vl.attach(model, vl.LoRAConfig(rank=2))
    adapters = []
    for number in range(3):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
        adapters.append(out / f"{number}.safetensors")
        vl.save_adapter(model, adapters[-1])
    harm = attack_fleet(out / "fleet", adapters, kills, seed)
    for line in harm:
        print(line)
    changes = len(read_index(out / "fleet").audit)
    print(f"fleet: {kills} writers killed among {changes} changes")
    return len(harm)


if __name__ == "__main__":
    sys.exit(main())
