"""YAML whose mappings have every key once; PyYAML takes the last of several without a word."""

from __future__ import annotations

from typing import Any

import yaml

MAPPING = "tag:yaml.org,2002:map"


def without_repeats(loader: type[Any]) -> None:
    """Make a loader refuse a mapping that has a key twice, with a `yaml.constructor.ConstructorError`.

    Args:
        loader: a loader class of PyYAML, of the caller's own.
    """
    make = loader.yaml_constructors.get(MAPPING, loader.construct_mapping)

    def mapping(self: Any, node: yaml.MappingNode) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                problem = f"the key '{key.value}' is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(str(key.value))
        return make(self, node)

    loader.add_constructor(MAPPING, mapping)


class Settings(yaml.SafeLoader):
    """Plain values of YAML 1.1."""


without_repeats(Settings)
