"""YAML as plain data whose scalars stay text, for a schema to read."""

from typing import Any

import yaml

from visionlora.errors import InputError


def read_yaml(text: str) -> Any:
    """Plain data from YAML; numbers and booleans stay text for the schema to read.

    Raises:
        InputError: it is not YAML, or asks for Python objects.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise InputError(f"not valid YAML ({' '.join(str(error).split())})") from error
    except RecursionError as error:
        raise InputError("not valid settings: nested too deeply") from error


class _Loader(yaml.SafeLoader):
    """Scalars stay text, except null: the schema knows their types.

    YAML alone would read 1e-3 as text, ``off`` as false, and a split named 2017_11_01 as a number.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there twice, where YAML lets the last one win."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is there twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_KEPT = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _KEPT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
