"""Merge nested mappings, and build them from dotted keys."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vl2v.errors import ConfigError


def names_of(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return one name or several names as a tuple. A text is one name, not the names of its letters.

    Raises:
        ConfigError: if it is neither a text nor a list of texts.
    """
    if isinstance(names, str):
        return (names,)
    listed: tuple[str, ...] | None = tuple(names) if isinstance(names, Iterable) else None
    if listed is None or not all(isinstance(name, str) for name in listed):
        expected, step = 'a list of texts, such as ["cat", "dog"]', "pass a list of names"
        raise ConfigError("These are not names.", expected=expected, found=reprlib.repr(names)[:100], next_step=step)
    return listed


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` updated recursively with `changes`; a None in `changes`, or a mapping of only None, is ignored.

    Raises:
        ConfigError: if `base`, or a value of it below which `changes` has keys, is not a mapping.
    """
    merged = mapping(base, "The settings are")
    for key, value in changes.items():
        if isinstance(value, Mapping):
            below = merged.get(key)
            nested_value = merge(below if isinstance(below, Mapping) else {}, value)
            if nested_value and below is not None:
                mapping(below, f"The setting {key} is")
            if nested_value or below is None or isinstance(below, Mapping):
                merged[key] = nested_value
        elif value is not None:
            merged[key] = value
    return merged


def mapping(value: object, what: str) -> dict[str, Any]:
    """Return a mapping as a new dict.

    Args:
        what: subject and verb for the message, such as "The settings are".

    Raises:
        ConfigError: if the value is not a mapping.
    """
    if isinstance(value, Mapping):
        return dict(value)
    found, step = f"{type(value).__name__} {reprlib.repr(value)[:60]}", "see docs/configuration.md"
    expected = 'a mapping of keys, such as {"distill": {"steps": 500}}'
    raise ConfigError(f"{what} not a mapping.", expected=expected, found=found, next_step=step)


def nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """Convert dotted keys to nested mappings: ``{"a.b": 1}`` to ``{"a": {"b": 1}}``.

    Raises:
        ConfigError: if a key has both a value and keys below it.
    """
    out: dict[str, Any] = {}
    for key, value in dotted.items():
        *path, last = key.split(".")
        branch: dict[str, Any] = {last: value}
        for part in reversed(path):
            branch = {part: branch}
        if _clash(out, branch):
            raise ConfigError(
                f"The setting {key} contradicts another one.",
                expected="a value for each key, or keys below it",
                found=", ".join(dotted),
                next_step="drop one of them",
            )
        out = merge(out, branch)
    return out


def _clash(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Return whether a key has a value in one mapping and keys below it in the other."""
    both = [(a[key], b[key]) for key in a.keys() & b.keys()]
    return any(
        _clash(one, other)
        if isinstance(one, Mapping) and isinstance(other, Mapping)
        else isinstance(one, Mapping) != isinstance(other, Mapping)
        for one, other in both
    )
