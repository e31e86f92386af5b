"""What is wrong with a config, in words."""

from reprlib import Repr
from typing import Any

from pydantic import BaseModel, ValidationError

from visionlora.errors import nearest, some

_SHOWN = 4
_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxstring = 2, 80
_PLAINER = {
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
    if kind == "extra_forbidden":
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
    here = {name: ".".join([*section, name]) for name in sections.get(".".join(section), schema).model_fields}
    elsewhere = {field: f"{name}.{field}" for name, kind in sections.items() for field in kind.model_fields}
    elsewhere |= {name: name for name in schema.model_fields}
    key = elsewhere.get(word) or here.get(nearest(word, here), elsewhere.get(nearest(word, elsewhere, 0.7)))
    hint = f" (did you mean '{key}'?)" if key else f"; known are {some(here.values(), 8)}"
    return f"unknown key '{'.'.join(location)}'{hint}"


def sections_of(schema: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The fields of a schema that are schemas themselves."""
    fields = {name: field.annotation for name, field in schema.model_fields.items()}
    return {name: kind for name, kind in fields.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}
