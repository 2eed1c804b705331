"""YAML of limited size whose mappings have every key once; PyYAML takes the last of several without a word."""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.composer import Composer, ComposerError

MAPPING, INTEGER, REAL = (f"tag:yaml.org,2002:{kind}" for kind in ("map", "int", "float"))
MOST_VALUES = 1_000_000  # in a file whose aliases are written out
QUOTE = "put quotes around the value"
INDENT = "indent the lines of a block alike"
FAULTS = (  # what the parser says, what it means, and the next step
    (r"'\\t' that cannot start", "a tab character", "indent with spaces"),
    (r"character '(.*)' that cannot start", "a value that begins with {}", QUOTE),
    (r"undefined alias", "a value that begins with *", QUOTE),
    (r"not allowed here", "a second colon, or another indentation than above", f"{QUOTE}, or {INDENT}"),
    (r"expected <block end>", "text after a quote, or another indentation than above", f"{QUOTE}, or {INDENT}"),
    (r"end of stream|<stream end>", "a quote or a bracket that is not closed", "close it"),
    (r"expected '?,'? or", "a bracket that is not closed, or a comma that is missing", "close or add it"),
    (r"could not find expected ':'", "a line without a colon", "write lines of the form key: value"),
    (r"another document", "a second document after ---", "keep one document in the file"),
    (r"constructor for the tag|tag handle", "a tag, which begins with !", f"remove the tag, or {QUOTE}"),
    (r"given twice", "", "keep one of the lines"),
    (r"codec can't decode", "bytes that are not UTF-8", "save the file in UTF-8"),
)


def fault_of(error: Exception) -> tuple[str, str]:
    """Return in words what is wrong with a file that the parser of YAML refuses, with its line, and the next step."""
    marks = [getattr(error, name, None) for name in ("problem_mark", "context_mark")]
    message = " ".join(str(getattr(error, "problem", None) or error).split())[:300]
    problem, step = message, f"correct the file; {QUOTE} if it has a colon, a quote or a special character"
    for pattern, meaning, remedy in FAULTS:
        if match := re.search(pattern, message):
            problem, step = meaning.format(*match.groups()) or message, remedy
            break
    if "close" in step:
        marks.reverse()  # where the quote or the bracket begins
    mark = next((mark for mark in marks if mark is not None), None)
    return (f"line {mark.line + 1}: {problem}" if mark is not None else problem), step


class Limited(Composer):
    """Mixin for a loader: refuses files whose aliases stand for an enormous number of values."""

    def get_single_node(self) -> Any:
        """Return the root of the file.

        Raises:
            yaml.composer.ComposerError: if the file would have more than `MOST_VALUES` values without aliases.
        """
        root = super().get_single_node()
        if root is not None and _size(root, {}) > MOST_VALUES:
            problem = f"aliases that stand for more than {MOST_VALUES:,} values, or for themselves"
            raise ComposerError(None, None, problem, root.start_mark)
        return root


def _size(node: Any, sizes: dict[int, int]) -> int:
    """The number of values in a node, with aliases written out; more than `MOST_VALUES` if it contains itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = MOST_VALUES + 1  # while it is open
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        sizes[id(node)] = min(1 + sum(_size(part, sizes) for part in parts), MOST_VALUES + 1)
    return sizes[id(node)]


def without_repeats(loader: type[Any]) -> None:
    """Make a loader refuse a mapping that has a key twice, with a `yaml.constructor.ConstructorError`."""
    make = loader.yaml_constructors.get(MAPPING, loader.construct_mapping)

    def mapping(self: Any, node: yaml.MappingNode) -> Any:
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in keys and key.value != "<<":
                problem = f"the key '{key.value}' is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            keys.add(str(key.value))
        return make(self, node)

    loader.add_constructor(MAPPING, mapping)


class Settings(Limited, yaml.SafeLoader):
    """Plain values of YAML without repeated keys.

    As in YAML 1.2, 010 is not octal, and 1:30 is not a number of base 60. They remain texts, as do 0x10 and 0b1.
    """


without_repeats(Settings)
Settings.yaml_implicit_resolvers = {
    start: [(tag, form) for tag, form in found if tag not in (INTEGER, REAL)]
    for start, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Settings.add_implicit_resolver(INTEGER, re.compile(r"[-+]?(0|[1-9][0-9_]*)$"), list("-+0123456789"))
Settings.add_implicit_resolver(
    REAL,
    re.compile(
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)
