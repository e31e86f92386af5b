"""Measure what the documents claim.

python scripts/benchmark.py coverage --peft --json coverage.json
python scripts/benchmark.py run --model vit_tiny_patch16_224 --size 112 --batch 32
python scripts/benchmark.py step --model resnet50 --peak
python scripts/benchmark.py routes --model vit_small_patch16_224
python scripts/benchmark.py launches --model resnet50
python scripts/benchmark.py export --only resnet10t
python scripts/benchmark.py check-data --images 25000 50000 100000
python scripts/benchmark.py scaling --model resnet50 --gbit 25
python scripts/benchmark.py sharding --model vit_small_patch16_224
python scripts/benchmark.py loader
python scripts/benchmark.py load --images 25000 100000 --footage 2000 20000 --frames 2000 20000
python scripts/benchmark.py pick annotations.json --days monday --val tuesday --test friday --checkpoint FILE
python scripts/benchmark.py drift vtest.avi car_park/images --every 3 --scenes 500
python scripts/benchmark.py recalibration ants_bees_256 --checkpoint tf_efficientnet_lite0.safetensors
python scripts/benchmark.py fleet --model vit_small_patch16_224
python scripts/benchmark.py forecast runs/ants runs/cells
python scripts/benchmark.py extended --model mobilenetv2_100
python scripts/benchmark.py keep-classes photos ants_bees_256 --checkpoint FILE --known imagenet_samples_256
"""

import argparse
import sys

from benchmarks import (
    check_data,
    coverage,
    drift,
    export,
    extended,
    fleet,
    forecast,
    keep_classes,
    launches,
    load,
    loader,
    pick,
    recalibration,
    routes,
    run,
    scaling,
    sharding,
    step,
)

COMMANDS = {
    "coverage": coverage,
    "run": run,
    "step": step,
    "routes": routes,
    "launches": launches,
    "export": export,
    "check-data": check_data,
    "scaling": scaling,
    "sharding": sharding,
    "loader": loader,
    "load": load,
    "pick": pick,
    "drift": drift,
    "recalibration": recalibration,
    "fleet": fleet,
    "forecast": forecast,
    "extended": extended,
    "keep-classes": keep_classes,
}
"""Name -> module with a docstring, ``add_arguments(parser)`` and ``run(arguments)``, the exit code."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=module.__doc__, description=module.__doc__))
    arguments = parser.parse_args(argv)
    return COMMANDS[arguments.command].run(arguments)


if __name__ == "__main__":
    sys.exit(main())
