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
        raise InputError(f"nested more than {DEEPEST} deep") from error
    except ValueError as error:
        raise InputError(f"not JSON: {error}") from error
    _check(value)
    return value


def _check(value: Any) -> None:
    """Level by level, without recursion."""
    level = [value]
    for _ in range(DEEPEST + 1):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                for key in each:
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
        level = inner
    raise InputError(f"nested more than {DEEPEST} deep")


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"half a character, {text[error.start]!a}") from error
