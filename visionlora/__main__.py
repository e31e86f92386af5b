"""``python -m visionlora``: the command line, as torchrun and accelerate start it."""

from visionlora.cli.main import main

if __name__ == "__main__":  # a study's processes import this
    main()
