"""``python -m visionlora``: the command line, as torchrun and accelerate start it."""

from visionlora.cli.main import main

main()
