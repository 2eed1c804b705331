"""A setting of two types has one fault, under its own key, that names both types."""

from __future__ import annotations

import types
import typing
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from vl2v.config import RunConfig
from vl2v.errors import ConfigError
from vl2v.options import fields_of
from vl2v.settings import make_config
from vl2v.strict import Positive, Strict, described
from vl2v.student.architectures import TimmOptions

NEEDED: dict[str, Any] = {"data": {"root": "images"}, "teacher": {"spec": "offline:"}, "student": {"spec": "timm:some"}}
UNIONS = {
    "data.balance": ("a number from 0 to 1, or 'auto'", [2, -0.1, "x", "Auto", [0.5], {}]),
    "teacher.views": ("a whole number of at least 1, or 'fresh'", [0, 1.5, "x", ["fresh"]]),
    "distill.minutes": ("a number of at least 0, or 'auto'", [-1, [1]]),
    "teacher.prompts": ("a text, or a list of values, each a text", [3, [1], ["a {}", None], {"a": 1}]),
}
FLAGS = {"minutes": "time"}  # options whose name differs from the setting


def types_of(annotation: Any) -> list[Any]:
    """Return the types of a union except None, or nothing for another type."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return []
    return [kind for kind in typing.get_args(annotation) if kind is not type(None)]


def test_every_setting_of_two_types_is_tested() -> None:
    unions = {key for key, field in fields_of(RunConfig) if len(types_of(field.annotation)) > 1}
    assert unions == set(UNIONS)


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, (_, values) in UNIONS.items() for value in values])
def test_a_wrong_value_gives_one_fault_under_its_key(key: str, value: object) -> None:
    block, name = key.split(".")
    with pytest.raises(ConfigError) as caught:
        make_config(None, {**NEEDED, block: {**NEEDED.get(block, {}), name: value}})
    lines = caught.value.problem.splitlines()
    assert lines[0].startswith("1 fault in ")
    assert lines[1].startswith(f"  {key}: Input should be {UNIONS[key][0]} (found ")
    assert lines[1].endswith(f"; the option is --{FLAGS.get(name, name)}")
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [("data.balance", 0), ("data.balance", "auto"), ("data.balance", 0.5), ("teacher.views", 3),
     ("teacher.views", "fresh"), ("teacher.prompts", "photo"), ("teacher.prompts", ["a {}", "one {}"]),
     ("distill.minutes", "auto"), ("distill.minutes", 2)],
)  # fmt: skip
def test_values_of_either_type_are_read(key: str, value: object) -> None:
    block, name = key.split(".")
    config = make_config(None, {**NEEDED, block: {**NEEDED.get(block, {}), name: value}})
    read = getattr(getattr(config, block), name)
    assert read == (tuple(value) if isinstance(value, list) else value)


def test_unions_of_other_packages_and_inside_lists_are_reported() -> None:
    class Further(Strict):
        rates: tuple[Annotated[float, Field(gt=0, lt=1)] | Literal["a", "b"], ...] = ()
        size: Positive | tuple[Positive, Positive] | None = None

    with pytest.raises(ValidationError) as caught:
        Further.model_validate({"rates": [0.5, 7], "size": 0})
    messages = {fault["loc"]: fault["msg"] for fault in caught.value.errors()}
    assert messages == {
        ("rates", 1): "Input should be a number above 0 and below 1, or 'a' or 'b'",
        (
            "size",
        ): "Input should be a whole number of at least 1, or a list of 2 values, each a whole number of at least 1",
    }


@pytest.mark.parametrize("value", [0, "x", [1], [1, 2, 3], 4096])
def test_options_of_a_student_file_are_reported(value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        TimmOptions.model_validate({"img_size": value})
    assert described(caught.value).startswith("img_size: Input should be a whole number from 1 to 2048, or a list of 2")
    assert len(caught.value.errors()) == 1
