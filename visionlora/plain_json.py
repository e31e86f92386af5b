"""JSON from a file that anybody may have written, as plain data."""

import json
from typing import Any

from visionlora.errors import InputError

DEEPEST = 32
"""Lists and objects inside each other."""
LONGEST_KEY = 1000
_LARGEST = 1 << 63


def read_json(text: str | bytes) -> Any:
    """Plain data that can be shown, written and computed with.

    Raises:
        InputError: it is not JSON, is nested too deeply, or holds a whole number, a key or a character that no file
            of ours has.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise InputError(f"nested too deeply, more than {DEEPEST} levels") from error
    except ValueError as error:
        raise InputError(f"not JSON: {error}") from error
    check_plain(value)
    return value


def check_plain(value: Any) -> None:
    """Raise InputError as ``read_json`` does. Level by level, so that loops and what is there twice end as well."""
    level = [value]
    for _ in range(DEEPEST + 1):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                for key in map(str, each):
                    _check_text(key)
                    if len(key) > LONGEST_KEY:
                        raise InputError(f"a key of {len(key)} characters")
                inner += each.values()
            elif isinstance(each, list):
                inner += each
            elif isinstance(each, str):
                _check_text(each)
            elif isinstance(each, int) and not -_LARGEST <= each < _LARGEST:
                raise InputError(f"a whole number of {each.bit_length()} bits")
        if not inner:
            return
        level = list({id(each): each for each in inner}.values())
    raise InputError(f"nested too deeply, more than {DEEPEST} levels")


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"half a character, {text[error.start]!a}") from error
