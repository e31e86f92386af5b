"""Numbers that say how images reach a model, checked before anything of their size is made."""

import math
from typing import Any

from visionlora.errors import InputError, shown

LARGEST_SIDE = 16_384
"""Pixels; what is larger is cut into windows."""


def check_whole(name: str, value: Any, least: int, most: int = LARGEST_SIDE) -> None:
    """Raise InputError unless it is a whole number in this range."""
    if type(value) is not int or not least <= value <= most:
        raise InputError(f"preprocessing: {name} is {shown(value)}; give a whole number from {least} to {most}")


def check_number(name: str, value: Any) -> None:
    """Raise InputError unless it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"preprocessing: {name} is {shown(value)}; give a number")


def check_triple(name: str, value: Any) -> None:
    """Raise InputError unless there is one finite number per RGB channel."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise InputError(f"preprocessing: {name} is {shown(value)}; give three numbers")
    for each in value:
        check_number(name, each)
