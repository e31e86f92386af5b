"""Which class a value or a colour in a mask file stands for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from visionlora.data.faults import shown
from visionlora.data.folders import what_there_is
from visionlora.errors import InputError, did_you_mean, some
from visionlora.plain_yaml import read_yaml

IGNORE = 255
"""In class masks: a pixel that is neither trained on nor measured."""

UNKNOWN = 254
"""In class masks: a value or a colour that stands for nothing; never in one that was accepted."""

MOST_CLASSES = 254

Color = tuple[int, int, int]

_KEYS = ("name", "color", "value")

SPREAD = 8
"""So far apart two classes must be for masks to be rounded: a JPEG changes values by less."""

_FAR, _LARGE = 32, 0.05
"""An edge that was smoothed has values of any kind, each in few pixels: what is as far from every class and covers so
large a share of a mask is no edge, and isn't rounded."""


@dataclass(frozen=True)
class ClassEntry:
    """A class as a file of classes names it: its value in index masks, and its RGB colour in colour masks."""

    name: str
    value: int
    color: Color | None = None


@dataclass(frozen=True)
class ClassMap:
    """Names of the classes, and how mask files write them.

    Attributes:
        names: in the order of a model's outputs.
        colors: of the same classes; None where they have none.
        values: pairs of a value in index masks and the index of its class, or ``IGNORE``.
        codes: pairs of a colour in colour masks, as 0xRRGGBB, and the same.
        nearest: whether what stands for no class is rounded to the nearest that does: of smoothed or lossy masks.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...] | None
    values: tuple[tuple[int, int], ...]
    codes: tuple[tuple[int, int], ...] = ()
    nearest: bool = False

    def class_values(self) -> list[int]:
        """In index masks, in the order of the classes."""
        by_class = {index: value for value, index in reversed(self.values)}  # of several, the least
        return [by_class[index] for index in range(len(self.names))]

    def classes_of(self, mask: np.ndarray) -> np.ndarray:
        """(H, W) values of 0 to 65535, or (H, W, 3) uint8 RGB -> (H, W) uint8: class, ``IGNORE`` or ``UNKNOWN``."""
        if mask.ndim == 2:
            return _table(2**16, self.values)[mask]
        return _table(2**24, self.codes)[codes_of(mask)]

    def nearest_classes(self, colored: bool) -> tuple[str, str, int]:
        """The two classes whose values, or colours, are nearest to each other, and how far apart these are."""
        pairs = [(number, index) for number, index in (self.codes if colored else self.values) if index != IGNORE]
        points = np.array([_point(number, 3 if colored else 2) for number, _ in pairs])  # (K, 1 or 3)
        apart = np.abs(points[:, None] - points[None]).max(axis=2)
        owners = np.array([index for _, index in pairs])
        apart[owners[:, None] == owners[None]] = 2**16
        one, other = divmod(int(apart.argmin()), len(pairs))
        return self.names[owners[one]], self.names[owners[other]], int(apart.min())

    def rounded(self, mask: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """``classes`` of a mask, with the nearest class or ``IGNORE`` for what is ``UNKNOWN``, but for what is no edge.

        As they are where classes are less than ``SPREAD`` apart.
        """
        if self.nearest_classes(mask.ndim == 3)[2] < SPREAD:
            return classes
        where = classes == UNKNOWN
        known = np.array([_point(number, mask.ndim) for number, _ in self._pairs(mask)])  # (K, 1 or 3)
        numbers = mask[where] if mask.ndim == 2 else codes_of(mask)[where]
        found, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
        points = np.array([_point(number, mask.ndim) for number in found.tolist()])  # (U, 1 or 3)
        nearest = np.zeros(len(found), np.int64)
        distance = np.full(len(found), np.inf)
        for index, point in enumerate(known):
            apart = np.abs(points - point).max(axis=1)
            nearest[apart < distance] = index
            distance = np.minimum(apart, distance)
        labels = np.array([label for _, label in self._pairs(mask)], np.uint8)[nearest]
        labels[(distance >= _FAR) & (counts > _LARGE * classes.size)] = UNKNOWN
        result = classes.copy()
        result[where] = labels[inverse.ravel()]
        return result

    def _pairs(self, mask: np.ndarray) -> tuple[tuple[int, int], ...]:
        return self.values if mask.ndim == 2 else self.codes


def codes_of(colors: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 RGB -> (...) int32 of 0xRRGGBB."""
    red, green, blue = (colors[..., channel].astype(np.int32) for channel in range(3))
    return (red << 16) | (green << 8) | blue


def color_of(code: int) -> Color:
    """0xRRGGBB -> RGB."""
    return code >> 16, code >> 8 & 0xFF, code & 0xFF


def _point(number: int, dimensions: int) -> tuple[int, ...]:
    return (number,) if dimensions == 2 else color_of(number)


def make_class_map(
    entries: Sequence[str | ClassEntry], ignore: Sequence[int] | None = None, more: Sequence[tuple[int, str]] = ()
) -> ClassMap:
    """A class map from names, whose values are then 0, 1, 2 ..., or from entries.

    Args:
        entries: classes, and perhaps others that are ignored, so that their colours are known.
        ignore: values that are neither trained on nor measured; an entry with such a value is no class. None is
            255, unless that is a class's value.
        more: further values and the names of their classes.

    Raises:
        InputError: a name, value or colour that is there twice, a colour for some classes and not for others, or
            fewer than two classes or more than 254.
    """
    known = [ClassEntry(entry, value) if isinstance(entry, str) else entry for value, entry in enumerate(entries)]
    _refuse_repeats("name", [entry.name for entry in known])
    _refuse_repeats("value", [entry.value for entry in known])
    _refuse_repeats("color", [entry.color for entry in known if entry.color is not None])
    _refuse_repeats("value", [*(entry.value for entry in known), *(value for value, _ in more)])
    taken = {entry.value for entry in known} | {value for value, _ in more}
    ignored = set(ignore) if ignore is not None else {IGNORE} - taken
    classes = [entry for entry in known if entry.value not in ignored]
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise InputError(f"{len(classes)} classes ({some(entry.name for entry in classes)}); give 2 to {MOST_CLASSES}")
    colorless = [entry.name for entry in known if entry.color is None]
    colored = [entry for entry in known if entry.color is not None]
    if colored and colorless:
        raise InputError(f"no color for {some(colorless)}, while others have one; give each class a color, or none")
    number = {entry.value: index for index, entry in enumerate(classes)}
    by_name = {entry.name: index for index, entry in enumerate(classes)}
    further = {value: by_name.get(name, IGNORE) for value, name in more}
    return ClassMap(
        names=tuple(entry.name for entry in classes),
        colors=tuple(entry.color for entry in classes if entry.color is not None) or None,
        values=tuple(sorted({**number, **further, **dict.fromkeys(ignored, IGNORE)}.items())),
        codes=tuple((int(codes_of(np.array(entry.color))), number.get(entry.value, IGNORE)) for entry in colored),
    )


def read_class_map(path: Path) -> ClassMap:
    """Read a YAML file of classes: a list of names, or

        classes:
          - {name: road, color: [128, 64, 128], value: 7}
          - sidewalk
          - void
        ignore: void

    A class's value is its place in the list, from 0, unless it has its own. ``color`` is for masks that are
    colour pictures. ``ignore`` is a name or a value, or a list of them; without it, 255. ``values: {255: person}``
    gives values to classes as well, and if there is no list, the classes in their order.

    Raises:
        InputError: no such file, or anything in it that can't be meant.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such file{what_there_is(path)}; name the classes there, as in classes: [road, car]"
        )
    try:
        content = read_yaml(path.read_text(encoding="utf-8-sig"))
        return _parse(content)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text in UTF-8") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _parse(content: Any) -> ClassMap:
    if isinstance(content, list):
        content = {"classes": content}
    if isinstance(content, dict) and "classes" not in content and isinstance(content.get("values"), dict):
        content = {**content, "classes": list(dict.fromkeys(content["values"].values()))}
    if not isinstance(content, dict) or not isinstance(content.get("classes"), list):
        raise InputError(f"holds {shown(content)}; name the classes, as in classes: [road, car]")
    _refuse_unknown_keys(content, ("classes", "values", "ignore"))
    entries = [_entry(given, place) for place, given in enumerate(content["classes"])]
    values = _values(content.get("values"), [entry.name for entry in entries])
    first = {name: value for value, name in reversed(values)}
    entries = [replace(entry, value=first.get(entry.name, entry.value)) for entry in entries]
    more = [(value, name) for value, name in values if first[name] != value]
    if content.get("ignore") is None:
        return make_class_map(entries, more=more)
    given = content["ignore"] if isinstance(content["ignore"], list) else [content["ignore"]]
    return make_class_map(entries, [_ignored(one, entries) for one in given], more)


def _values(given: Any, names: list[str]) -> list[tuple[int, str]]:
    """Pairs of a value and the name of its class."""
    if given is None:
        return []
    if not isinstance(given, dict):
        raise InputError(f"'values' is {shown(given)}; give each value its class, as in values: {{255: person}}")
    pairs = []
    for key, name in given.items():
        value = _number(str(key), 65535)
        if value is None:
            raise InputError(f"'values' has {shown(key)}; give a number from 0 to 65535, as in values: {{255: person}}")
        if name not in names:
            raise InputError(f"'values' has {shown(name)}, which is no class{did_you_mean(str(name), names)}")
        pairs.append((value, str(name)))
    return pairs


def _entry(given: Any, place: int) -> ClassEntry:
    if not isinstance(given, dict):
        return ClassEntry(_name(given), place)
    _refuse_unknown_keys(given, _KEYS)
    name, color, value = _name(given.get("name")), given.get("color"), given.get("value")
    if value is not None and _number(value, 65535) is None:
        raise InputError(f"class {shown(name)} has the value {shown(value)}; give a number from 0 to 65535")
    if color is None:
        return ClassEntry(name, place if value is None else int(value))
    channels = [_number(channel, 255) for channel in color] if isinstance(color, list) else []
    red, green, blue = channels if len(channels) == 3 else (None, None, None)
    if red is None or green is None or blue is None:
        raise InputError(f"class {shown(name)} has the color {shown(color)}; give [red, green, blue], each 0 to 255")
    return ClassEntry(name, place if value is None else int(value), (red, green, blue))


def _name(given: Any) -> str:
    if not isinstance(given, str) or not given.strip() or not given.isprintable():
        raise InputError(f"a class is named {shown(given)}; give a name, or {{name: ..., color: [...]}}")
    return given


def _ignored(given: Any, entries: list[ClassEntry]) -> int:
    """The value that is meant. A name goes before a number: a class may be called 1."""
    named = {entry.name: entry.value for entry in entries}
    if isinstance(given, str) and given in named:
        return named[given]
    value = _number(given, 65535)
    if value is None:
        hint = did_you_mean(str(given), named)
        raise InputError(f"'ignore' is {shown(given)}{hint}; give a class's name, or a value from 0 to 65535")
    return value


def _number(given: Any, most: int) -> int | None:
    """Digits as a number of 0 to ``most``; None if it isn't one."""
    if not isinstance(given, str) or not (given.isascii() and given.isdigit()) or len(given) > 5 or int(given) > most:
        return None
    return int(given)


def _refuse_unknown_keys(content: dict[Any, Any], known: Sequence[str]) -> None:
    for key in content:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise InputError(f"unknown key {shown(key)}{hint}; there are {some(known)}")


def _refuse_repeats(what: str, values: Sequence[object]) -> None:
    if repeated := [value for value in values if values.count(value) > 1]:
        raise InputError(f"two classes have the {what} {shown(repeated[0])}; give each its own")


@lru_cache(maxsize=4)
def _table(size: int, pairs: tuple[tuple[int, int], ...]) -> np.ndarray:
    """(size,) uint8: what each number stands for."""
    table = np.full(size, UNKNOWN, np.uint8)
    for number, index in pairs:
        table[number] = index
    table.flags.writeable = False  # it is shared
    return table
