"""A setting that a run does not read leads to a warning, so a new setting without a rule is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tiny_dataset import TINY, Bench

import vl2v
from vl2v.config import RunConfig
from vl2v.locations import StoragePaths
from vl2v.method.registry import METHODS
from vl2v.planning.effects import RULES
from vl2v.runs.folder import RunFolder
from vl2v.strict import Strict

WHOLE = "distill.swad."  # passed on as a whole
UNUSED = {"recipe"}  # its values become defaults of the other settings


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, tuple[str, str]]]:
    """Return the dotted keys of all settings with the class and the name of the field."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, (model.__name__, name)


@pytest.mark.slow
def test_a_setting_that_a_run_does_not_read_leads_to_a_warning(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[tuple[str, str]] = set()
    get = Strict.__getattribute__

    def recording(self: Strict, name: str) -> Any:
        if not name.startswith("_"):
            read.add((get(self, "__class__").__name__, name))
        return get(self, name)

    monkeypatch.setattr("vl2v.planning.plan.without_effect", lambda config: [])
    monkeypatch.setattr(Strict, "__getattribute__", recording)
    settings = TINY | {"data": {"held_out": ["rose"]}, "distill": {"steps": 6, "checkpoint_every": 3}}
    storage = StoragePaths(tmp_path / "cache", tmp_path / "s.sqlite")
    vl2v.distill(
        bench.data, bench.teacher, bench.student, out=tmp_path / "run", settings=settings, storage=storage, report=False
    )
    monkeypatch.undo()
    config = RunFolder(tmp_path / "run").config()
    method = METHODS[config.method]
    unread = {key for key, field in leaves(RunConfig) if field not in read and not key.startswith(WHOLE)} - UNUSED
    warned = {key for rule in RULES for key in rule.keys if not rule.applies(config, method)}
    others = {key for key in unread if key.partition(".")[0] in {*METHODS} - {config.method}}
    assert "kd.temperature" in others
    assert unread - others <= warned
    assert "align.ridge" in unread
