"""YAML as plain data whose scalars stay text, for a schema to read."""

from typing import Any

import yaml

from visionlora.errors import InputError
from visionlora.plain_json import DEEPEST, check_plain

_MERGED = 10_000
"""Entries that merge keys may bring into a mapping; each merge of merges multiplies them."""
_LONGEST = 300


def read_yaml(text: str, null: bool = True) -> Any:
    """Plain data from YAML: mappings, lists and text; numbers and booleans stay text for the schema to read.

    Args:
        null: read ``null``, ``~`` and nothing as None, and ``<<`` as a merge; without, they are text, too.

    Raises:
        InputError: it is not YAML, is nested too deeply, or has tags, which could ask for other objects.
    """
    try:
        value = yaml.load(text, Loader=_Loader if null else _TextLoader)  # SafeLoaders
        check_plain(value)
    except (yaml.YAMLError, InputError) as error:
        reason = " ".join(str(error).split())
        reason = reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}..."
        raise InputError(f"not valid YAML ({reason})") from error
    return value


class _Loader(yaml.SafeLoader):
    """Scalars stay text, except null: the schema knows their types.

    YAML alone would read 1e-3 as text, ``off`` as false, and a split named 2017_11_01 as a number.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse deep nesting before Python's stack ends."""
        self.depth += 1
        if self.depth > DEEPEST + 1:
            raise yaml.composer.ComposerError(None, None, "nested too deeply", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there twice, where YAML lets the last one win."""
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is there twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse merges that bring in too much, before the next one multiplies it."""
        before = len(node.value)
        super().flatten_mapping(node)
        if len(node.value) > max(before, _MERGED):
            raise yaml.constructor.ConstructorError(None, None, "merges too many entries", node.start_mark)


_TAG = "tag:yaml.org,2002:"
_KEPT = (f"{_TAG}null", f"{_TAG}merge")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _KEPT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_READ = (*(f"{_TAG}{kind}" for kind in ("null", "str", "seq", "map")), None)  # None is what refuses all others
_Loader.yaml_constructors = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _READ}


class _TextLoader(_Loader):
    """A class may be called null."""


_TextLoader.yaml_implicit_resolvers = {}
