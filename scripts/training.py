"""What the scripts that train have in common: ``visionlora train`` with a config of their own by default."""

import argparse

from visionlora.cli.configs import find_config
from visionlora.cli.exit_code import exit_code
from visionlora.config import load_config
from visionlora.training.run import train


def main(about: str, default: str, example: str) -> int:
    """Train as the command line says; the exit code.

    Args:
        about: the script's docstring.
        default: the config's name.
        example: overrides, for the help.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help=f"settings such as {example}")
    parser.add_argument("--config", default=default, help="a YAML file or a shipped config's name (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on exactly where the run was stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in the folder")
    arguments = parser.parse_intermixed_args()

    def run() -> None:
        config = load_config(find_config(arguments.config), arguments.overrides)
        train(config, resume=arguments.resume, overwrite=arguments.overwrite)

    return exit_code(run)
