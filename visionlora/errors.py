"""The one error that is meant for the person at the keyboard."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from reprlib import Repr

_UNSAFE = re.compile(r"[\x00-\x08\n-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# A path of pathlib has one slash where a URL has two. What follows a user and a colon is a password, whatever it holds,
# unless it is a port.
_SCHEME = r"(\b[a-zA-Z][a-zA-Z0-9+.-]+:/+)"
_CREDENTIALS = re.compile(_SCHEME + r"(?:[^\s/@:?#]*:(?!\d+(?:[/?#\s]|$))\S*|[^\s/@?#]+)@")
_QUERY = re.compile(_SCHEME + r"([^\s?#'\"]*)[?#][^\s'\"]+")
_LONGEST = 1800
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 80


class InputError(ValueError):
    """Something that was given can't be used.

    The message is one line: what is wrong, where, and what to do. The command line prints it and
    exits with code 2; in a program it is an ordinary ``ValueError``. What was given stands in it as
    ``on_one_line`` has it, for file names, keys and values may hold anything.
    """

    def __init__(self, message: object = "") -> None:
        text = on_one_line(message)
        if len(text) > _LONGEST:  # what to do stands at the end
            text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
        super().__init__(text)


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
    """The first few names, comma-separated and fit for a terminal, and how many more there are."""
    listed = [on_one_line(name) for name in names]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def shown(value: object) -> str:
    """A value from a file in a message: on one line, escaped, and never long."""
    return _SHORT.repr(value)


def printable(text: str) -> str:
    """The text as a terminal may get it: control characters but the tab escaped, and without a URL's user, password and
    query, where tokens and signatures stand.

    Escaped are also what turns the direction of writing, and halves of characters. Lines stay lines: a name in one
    is passed through ``on_one_line`` before.
    """
    return "\n".join(on_one_line(line) for line in text.split("\n"))


def on_one_line(text: object) -> str:
    """As ``printable``, with line breaks escaped as well."""
    plain = _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], str(text))
    return _QUERY.sub(r"\1\2?***", _CREDENTIALS.sub(r"\1***@", plain))
