"""The base of all settings: unknown keys are errors, values do not change. Also the types of common numbers."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import CoreSchema

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]

NUMBERS = {"int": "a whole number", "float": "a number", "decimal": "a number"}
TEXTS = {"str": "a text", "bool": "true or false", "none": "nothing"}
LISTS = {"list", "tuple", "set", "frozenset"}
BOUNDS = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}


def _join_faults(schema: Any) -> None:
    """Change the unions within a schema of pydantic in place."""
    if isinstance(schema, dict):
        if schema.get("type") == "union":
            schema.setdefault("custom_error_type", "union")
            schema.setdefault("custom_error_message", f"Input should be {_worded(schema)}")
        parts = list(schema.values())
    else:
        parts = list(schema) if isinstance(schema, list | tuple) else []
    for part in parts:
        _join_faults(part)


def _worded(schema: Mapping[str, Any]) -> str:
    """State in words what values a schema accepts."""
    kind = schema["type"]
    if kind == "union":
        choices = [choice[0] if isinstance(choice, tuple) else choice for choice in schema["choices"]]
        return ", or ".join(map(_worded, choices))
    if kind == "literal":
        return " or ".join(map(repr, schema["expected"]))
    if kind in NUMBERS:
        bounds = [f"{words} {schema[name]:g}" for name, words in BOUNDS.items() if schema.get(name) is not None]
        if schema.get("ge") is not None and schema.get("le") is not None:
            bounds = [f"from {schema['ge']:g} to {schema['le']:g}"]
        return " ".join([NUMBERS[kind], *([" and ".join(bounds)] if bounds else [])])
    if kind in LISTS:
        inner = schema.get("items_schema")
        items = [inner] if isinstance(inner, Mapping) else list(inner or [])
        fixed = kind == "tuple" and schema.get("variadic_item_index") is None and items
        count = f"a list of {len(items)} values" if fixed else "a list of values"
        return f"{count}, each {_worded(items[0])}" if items else count
    if isinstance(inner := schema.get("schema"), Mapping):  # e.g. a validator around a type
        return _worded(inner)
    return TEXTS.get(kind, f"a {kind}")


class OneFault(BaseModel):
    """A model that reports one fault, not one for each type, if a value has none of the types of a field.

    Pydantic reports a fault for each type of a union, under keys that no file has, such as ``balance.literal['auto']``.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Give every union of the model's own fields one message that names all its types."""
        schema = handler(source)
        _join_faults(schema)
        return schema


class Strict(OneFault):
    """Settings without unknown keys and without NaN or infinity, frozen; the docstrings of fields describe them."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, defer_build=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false in place of another value. Pydantic converts them to the numbers 1 and 0."""
        field = cls.model_fields.get(info.field_name or "")
        if isinstance(value, bool) and field is not None and not _takes_truth(field.annotation):
            raise ValueError("Input should not be true or false; YAML also reads yes, no, on and off as these")
        return value


def _takes_truth(annotation: Any) -> bool:
    """Return whether a type accepts true and false as they are."""
    return annotation in (bool, Any, object) or any(map(_takes_truth, get_args(annotation)))


def described(error: ValidationError, most: int = 3) -> str:
    """Describe the first errors of a validation, each with its key and value."""
    faults = error.errors()
    parts = [
        f"{'.'.join(str(key)[:60] for key in fault['loc']) or 'the whole'}: {fault['msg'][:200]}"
        + ("" if fault["type"] == "missing" else f" ({reprlib.repr(fault['input'])[:60]})")
        for fault in faults[:most]
    ]
    return "; ".join(parts) + (f"; and {len(faults) - most} more" if len(faults) > most else "")
