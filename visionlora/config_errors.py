"""What is wrong with a config, in words."""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from reprlib import Repr
from typing import Any

from pydantic import BaseModel, ValidationError

from visionlora.errors import nearest, some

_SHOWN = 4
_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxstring = 2, 80
_PLAINER = {
    "dataclass_type": "it should be a section of 'key: value' lines",
    "dict_type": "input should be 'key: value' pairs",
    "missing": "it has too few values",
    "model_type": "it should be a section of 'key: value' lines",
    "path_type": "input should be a path",
    "tuple_type": "input should be a valid list",
}
"""What pydantic calls by its Python type."""


def explain(error: ValidationError, values: dict[str, Any], schema: type[BaseModel]) -> list[str]:
    """What is wrong with the first few fields, one text each; a union reports a problem for each of its members."""
    by_field: dict[str, list[Any]] = {}
    for problem in error.errors():
        by_field.setdefault(".".join(str(part) for part in problem["loc"][:2]), []).append(problem)
    texts = [_explain_field(field, problems, values, schema) for field, problems in by_field.items()]
    return texts if len(texts) <= _SHOWN else [*texts[:_SHOWN], f"and {len(texts) - _SHOWN} more"]


def _explain_field(field: str, problems: list[Any], values: dict[str, Any], schema: type[BaseModel]) -> str:
    location = problems[0]["loc"]
    kind = problems[0]["type"]
    if kind == "value_error" and len(location) == 1:  # what a section says of itself begins with the key
        return f"{field}.{problems[0]['ctx']['error']}"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return _explain_unknown([str(part) for part in location], schema)
    if kind == "missing" and len(location) <= 2:
        return f"'{field}' is missing"
    given: Any = values
    for part in location[:2]:
        given = given[part] if isinstance(given, dict) and part in given else problems[0]["input"]
    messages = [_PLAINER.get(problem["type"], problem["msg"][0].lower() + problem["msg"][1:]) for problem in problems]
    return f"{field} is {_SHORT.repr(given)}: {', or '.join(dict.fromkeys(messages))}"


def _explain_unknown(location: list[str], schema: type[BaseModel]) -> str:
    *section, word = location
    sections = sections_of(schema)
    here = {name: ".".join([*section, name]) for name in _keys(sections.get(".".join(section), schema))}
    elsewhere = {field: f"{name}.{field}" for name, kind in sections.items() for field in _keys(kind)}
    elsewhere |= {name: name for name in _keys(schema)}
    key = elsewhere.get(word) or here.get(nearest(word, here), elsewhere.get(nearest(word, elsewhere, 0.7)))
    hint = f" (did you mean '{key}'?)" if key else f"; known are {some(here.values(), 8)}"
    return f"unknown key '{'.'.join(location)}'{hint}"


def sections_of(schema: type[BaseModel]) -> dict[str, type]:
    """The fields of a schema that have fields themselves."""
    kinds = {name: field.annotation for name, field in schema.model_fields.items()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and _keys(kind)}


def _keys(section: type) -> Iterable[str]:
    if issubclass(section, BaseModel):
        return section.model_fields
    return [field.name for field in fields(section)] if is_dataclass(section) else []
