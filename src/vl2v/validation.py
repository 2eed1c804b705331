"""Validation of settings by pydantic models. All faults are reported at once, with their keys and options."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vl2v.errors import ConfigError
from vl2v.options import Option, fields_of
from vl2v.recipes import PAPER, recipe_of

Model = TypeVar("Model", bound=BaseModel)
WORDS = {"model_type": "Input should be keys and values", "tuple_type": "Input should be a list, such as [a, b]"}


def parse(model: type[Model], values: object, source: str) -> Model:
    """Validate settings. `source` is where they come from, for the message.

    Raises:
        ConfigError: if there are faults; it lists all of them with their keys.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = [fault for e in error.errors() for fault in _faults(e, source, model)]
        if (recipe := recipe_of(values)) != PAPER:
            source = f"{source}, combined with the recipe {recipe}"
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        problem = "\n".join([f"{count} in {source}:", *(f"  {fault}" for fault in faults)])
        raise ConfigError(problem, next_step="correct them all; docs/configuration.md lists every key") from error


def _faults(error: Mapping[str, Any], source: str, model: type[BaseModel]) -> list[str]:
    """Convert an error of pydantic to messages: a key and its value, or a contradiction between settings."""
    if not error["loc"] and error["type"] == "value_error":
        return str(error["ctx"]["error"]).split("\n")
    empty = error["type"] == "missing" or error["input"] is None
    value = "nothing" if empty else reprlib.repr(error["input"])[:60]
    message = error["ctx"]["error"] if error["type"] == "value_error" else error["msg"]
    if error["type"] in WORDS:
        message = WORDS[error["type"]]
    key = ".".join(map(str, error["loc"]))[:100]
    fields = dict(fields_of(model))
    near = _near(key, list(fields)) if error["type"] == "extra_forbidden" else []
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    for name in (key, key.rpartition(".")[0]):  # the second is without a position in a list
        marks = fields[name].metadata if name in fields else ()
        for mark in (m for m in marks if isinstance(m, Option)):
            hint = f"; the option is {mark.names(name.rpartition('.')[2])[0]}"
    return [f"{key or source}: {message} (found {value}){hint}"]


def _near(key: str, keys: Sequence[str]) -> list[str]:
    """Return known keys that are similar to an unknown one: with the same last part, or else a similar spelling."""
    last = key.rpartition(".")[2]
    same = [other for other in keys if other.rpartition(".")[2] == last]
    alike = get_close_matches(last, {other.rpartition(".")[2] for other in keys})
    return same or get_close_matches(key, keys) or [other for other in keys if other.rpartition(".")[2] in alike]
