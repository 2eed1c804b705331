"""Every error of vl2v has a next step."""

from __future__ import annotations

import ast
from pathlib import Path

import vl2v
import vl2v_runtime
from vl2v import errors

ERRORS = {"ModelError", *(name for name, kind in vars(errors).items() if isinstance(kind, type))}
OTHERS = {"MissingExtraError", "Interrupted"}  # its own step; not a fault


def without_a_step(text: str) -> list[int]:
    """Return the lines of a module that make an error without a next step."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ERRORS - OTHERS]
    return [call.lineno for call in made if not {"next_step", None} & {word.arg for word in call.keywords}]


def test_every_error_has_a_next_step() -> None:
    sources = [Path(str(package.__file__)).parent for package in (vl2v, vl2v_runtime)]
    files = [file for source in sources for file in sorted(source.rglob("*.py"))]
    assert len(files) > 300
    assert {str(file): lines for file in files if (lines := without_a_step(file.read_text("utf-8")))} == {}


def test_an_error_without_a_next_step_is_noticed() -> None:
    assert without_a_step("raise DataError('No.', expected='a', found='b')") == [1]
    assert without_a_step("raise DataError('No.', next_step='a')\nraise DataError('No.', **words)") == []
