"""What the fields of an adapter's header must hold, to the last value."""

from collections.abc import Callable, Iterable
from typing import Any

from visionlora.errors import shown

Check = Callable[[Any, str], None]
"""Takes a value and what it is called, and raises TypeError or ValueError, which say what is wrong."""

HIGHEST_RANK = 1_000_000
MANY_CLASSES = 10_000
"""More than so many need a stored tensor with as many rows."""
_LONGEST = 1000
_LAYER = ("rank", "alpha", "parts")


def check_fields(values: dict[str, Any]) -> None:
    """Raise TypeError or ValueError unless every field of a header is what it must be."""
    for name, check in _FIELDS.items():
        check(values[name], name)


def check_settings(values: Any) -> None:
    """The same for the settings of ``LoRAConfig`` that a header has; it checks their ranges, and knows their names."""
    _table(_anything)(values, "config")
    for name, check in _SETTINGS.items():
        if name in values:
            check(values[name], name)


def check_number_of_classes(classes: list[str] | None, shapes: Iterable[tuple[int, ...]]) -> None:
    """Raise ValueError if there are more class names than any tensor of the file has rows for."""
    most = max((size for shape in shapes for size in shape), default=0)
    if classes is not None and len(classes) > max(MANY_CLASSES, most):
        raise ValueError(f"there are {len(classes)} class names, and no tensor has more than {most} rows")


def _anything(value: Any, name: str) -> None:
    del value, name


def _text(value: Any, name: str) -> None:
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise TypeError(f"{name} is {shown(value)}")


def _number(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {shown(value)}")


def _rank(value: Any, name: str) -> None:
    if type(value) is not int or value > HIGHEST_RANK:
        raise TypeError(f"{name} is {shown(value)}")


def _list(check: Check) -> Check:
    def check_list(value: Any, name: str) -> None:
        if not isinstance(value, list):
            raise TypeError(f"{name} is {shown(value)}")
        for each in value:
            check(each, f"an entry of {name}")

    return check_list


def _table(check: Check) -> Check:
    def check_table(value: Any, name: str) -> None:
        if not isinstance(value, dict):
            raise TypeError(f"{name} is {shown(value)}")
        for key, each in value.items():
            check(each, f"{key} of {name}")

    return check_table


def _or(kind: type, check: Check) -> Check:
    return lambda value, name: None if isinstance(value, kind) else check(value, name)


def _layer(value: Any, name: str) -> None:
    layer = name.removesuffix(" of layers")
    _table(_anything)(value, layer)
    if unknown := [key for key in value if key not in _LAYER]:
        raise ValueError(f"{layer} has '{unknown[0]}'")
    _rank(value["rank"], f"rank of {layer}")
    if type(value["alpha"]) is not float:
        raise TypeError(f"alpha of {layer} is {shown(value['alpha'])}")
    _text(value["parts"], f"parts of {layer}")


_FIELDS: dict[str, Check] = {
    "layers": _table(_layer),
    "unfrozen": _list(_text),
    "architecture": _table(_text),
    "base": _table(_text),
    "classes": _or(type(None), _list(_text)),
    "preprocessing": _or(type(None), _table(_anything)),
    "extra": _table(_anything),
    "rounded": _table(_table(_text)),
}
_SETTINGS: dict[str, Check] = {
    "rank": _rank,
    "alpha": _number,
    "targets": _or(str, _list(_text)),
    "exclude": _list(_text),
    "unfreeze": _or(type(None), _list(_text)),
    "rank_pattern": _table(_rank),
    "alpha_pattern": _table(_number),
    "method": _text,
    "batchnorm": _text,
    "factor_dropout": _number,
    "init": _text,
}
