"""`--set KEY=VALUE` changes every setting of quote and distill; named flags take precedence."""

from __future__ import annotations

from typing import Any

import pytest

from vl2v.cli.common import pair
from vl2v.cli.settings import settings_of
from vl2v.errors import ConfigError
from vl2v.nested import nested


def assigned(*items: str, **flags: Any) -> dict[str, Any]:
    return settings_of(items, {key.replace("__", "."): value for key, value in flags.items()})


def test_any_setting_can_be_set_and_flags_take_precedence() -> None:
    values = assigned(
        "distill.augment.style=0.2", "rise.anchors=[a, b]", "seed=3", "distill.steps=50", distill__steps=70
    )
    assert values["distill"]["augment"] == {"style": 0.2}
    assert (values["distill"]["steps"], values["seed"], values["rise"]) == (70, 3, {"anchors": ["a", "b"]})


@pytest.mark.parametrize("item", ["", "seed", "=3", "seed=", "distill.=1", ".steps=1", "distill..steps=1", "seed=[1"])
def test_texts_other_than_assignments_are_refused(item: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        pair(item, "--set")


@pytest.mark.parametrize("keys", [("distill", "distill.steps"), ("distill.steps", "distill"), ("a.b.c", "a.b")])
def test_a_value_and_keys_below_it_contradict(keys: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="contradicts"):
        nested(dict.fromkeys(keys, 1))
    assert nested({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}
