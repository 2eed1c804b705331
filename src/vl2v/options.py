"""Marks the fields of settings that have an option of their own on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Option:
    """Marks a field that has its own command-line option.

    Attributes:
        panel: section of the help.
        flags: names of the option; empty to derive it from the name of the field.
        kind: type of the option; None for the type of the field.
        joined: whether several values are joined to one string with commas.
    """

    panel: str
    flags: tuple[str, ...] = ()
    kind: type | None = None
    joined: bool = False

    def names(self, field: str) -> tuple[str, ...]:
        """Return the names of the option of a field, the main one first."""
        return self.flags or (f"--{field.replace('_', '-')}",)


class Panel:
    """One `Option` per section of the help, for fields whose option has the name of the field."""

    data, teacher, student = Option("Data"), Option("Teacher"), Option("Student")
    money, method, training, machine = Option("Money"), Option("Method"), Option("Training"), Option("Machine")


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Iterate over all fields and their dotted keys in the order of `config.yaml`; a block precedes its fields."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields_of(field.annotation, f"{prefix}{name}.")
