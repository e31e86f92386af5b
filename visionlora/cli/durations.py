"""Times as people write them on the command line."""

import re

from visionlora.errors import InputError

_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


def seconds_of(text: str, option: str) -> float:
    """``90``, ``1.5s``, ``10min``, ``2h`` or ``1d`` in seconds.

    Raises:
        InputError: it is none of these, or no time at all.
    """
    found = _FORM.fullmatch(text.strip().lower())
    if found is None or found[2] not in _UNITS or not float(found[1]):
        raise InputError(f"{option} {text}: is no time; give 90s, 10min, 2h or 1d")
    return float(found[1]) * _UNITS[found[2]]
