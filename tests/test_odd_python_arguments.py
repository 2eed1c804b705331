"""Wrong arguments of the Python API: refused with what was expected, before anything is bought or trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import vl2v
from vl2v.errors import ConfigError, TeacherError, Vl2vError
from vl2v_runtime import Model


@pytest.mark.parametrize("names", [5, [None], ["cat", 3]])
@pytest.mark.parametrize("argument", ["held_out", "classes"])
def test_names_are_texts(tmp_path: Path, argument: str, names: Any) -> None:
    for function in (vl2v.quote, lambda *args, **given: vl2v.distill(*args, out=tmp_path / "run", **given)):
        with pytest.raises(ConfigError, match="not names"):
            function(tmp_path, "offline:", "offline:", **{argument: names})


def test_a_teacher_is_a_name_or_a_teacher(tmp_path: Path) -> None:
    teacher: Any = 5
    with pytest.raises(TeacherError, match="found: int"):
        vl2v.distill(tmp_path, teacher, "offline:", out=tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "message"),
    [([1], "settings are not a mapping"), ({"data": [1]}, "data is not a mapping"), ({"teacher": 5}, "teacher is not")],
)
def test_settings_of_a_resumed_run_are_mappings(tmp_path: Path, settings: Any, message: str) -> None:
    config = {
        "data": {"root": str(tmp_path)},
        "teacher": {"spec": "offline:"},
        "student": {"spec": "offline:"},
        "made_with": {},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    with pytest.raises(ConfigError, match=message):
        vl2v.distill(out=tmp_path, resume=True, settings=settings)
    for empty in ({}, {"data": None, "teacher": None}):
        with pytest.raises(Vl2vError):
            vl2v.distill(tmp_path / "gone", out=tmp_path, resume=True, settings=empty)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vl2v.evaluate("run", "photos", metric="f1"), "Unknown metric"),  # type: ignore[arg-type]
        (lambda: vl2v.evaluate("run", "photos", columns=["path"]), "columns are not a mapping"),  # type: ignore[arg-type]
        (lambda: vl2v.export("run", int8=True, tolerance=float("nan")), "tolerance is not valid"),
        (lambda: vl2v.export("run", tolerance=-1), "tolerance is not valid"),
    ],
)
def test_values_are_checked_first(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize("threads", [0, -3])
def test_a_model_needs_a_thread(threads: int) -> None:
    with pytest.raises(ValueError, match="1 thread or more"):
        Model("model.onnx", threads)
