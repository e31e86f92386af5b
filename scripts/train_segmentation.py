"""Adapt a segmenter: the same as `visionlora train`, as a script to copy from.

python scripts/train_segmentation.py --config segmentation_vit_tiny data.root=PATH data.classes=FILE train.epochs=5
"""

import argparse
import sys

from visionlora.cli.configs import find_config
from visionlora.config import load_config
from visionlora.errors import InputError
from visionlora.training.loop import Interrupted
from visionlora.training.run import train

DEFAULT = "segmentation_efficientnet_lite0"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="settings such as data.root=PATH train.epochs=5")
    parser.add_argument("--config", default=DEFAULT, help="a YAML file or a shipped config's name")
    parser.add_argument("--resume", action="store_true", help="go on exactly where the run was stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in the folder")
    arguments = parser.parse_intermixed_args()
    try:
        config = load_config(find_config(arguments.config), arguments.overrides)
        train(config, resume=arguments.resume, overwrite=arguments.overwrite)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
