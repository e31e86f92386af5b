"""The one error that is meant for the person at the keyboard."""

from collections.abc import Iterable
from difflib import get_close_matches
from reprlib import Repr

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 80


class InputError(ValueError):
    """Something that was given can't be used.

    The message is one line: what is wrong, where, and what to do. The command line prints it and
    exits with code 2; in a program it is an ordinary ``ValueError``.
    """


def nearest(word: str, known: Iterable[str], likeness: float = 0.5) -> str:
    """The nearest of the known words, or an empty string if none is as near as ``likeness`` (0 to 1) asks."""
    by_lower = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), by_lower, n=1, cutoff=likeness)
    return by_lower[found[0]] if found else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest of the known words, or an empty string."""
    found = nearest(word, known)
    return f" (did you mean '{found}'?)" if found else ""


def some(names: Iterable[object], limit: int = 5) -> str:
    """The first few names, comma-separated, and how many more there are."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def shown(value: object) -> str:
    """A value from a file in a message: on one line, escaped, and never long."""
    return _SHORT.repr(value)
