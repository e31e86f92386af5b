"""Export a trained model: the same as ``visionlora export``, as a script to copy from.

python scripts/export.py runs/site --to timm --out site
"""

import argparse
import sys
from pathlib import Path

import visionlora as vl
from visionlora.cli.exit_code import exit_code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder, or an adapter's .safetensors file")
    parser.add_argument("--to", required=True, help="timm, torchvision, onnx or onnx-heads")
    parser.add_argument("--out", type=Path, required=True, help="an empty or absent folder")
    parser.add_argument("--images", type=Path, nargs="*", default=[], help="images to check with, not the run's own")
    parser.add_argument("--checkpoint", type=Path, help="the base's weights, if they have moved")
    arguments = parser.parse_args()

    def run() -> None:
        result = vl.export(
            arguments.run, arguments.to, arguments.out, images=arguments.images, checkpoint=arguments.checkpoint
        )
        print(f"{result.out / result.file}: {result.bytes:,} bytes, sha256 {result.sha256}")
        print(f"largest difference from the adapted model: {result.difference:.1e}, on {result.compared}")
        for state, ratio in result.ratios().items():
            print(f"{state:>10} {ratio:.2f}")

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
