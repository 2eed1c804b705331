"""Untrusted class names and file names in tables contain no formula for a spreadsheet and no terminal command."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from exported_file import changed, make_exported
from made_folder import PICTURE, change, student_of

from command_line import run_cli
from vl2v.reports.sheet import Sheet
from vl2v_runtime.__main__ import main
from vl2v_runtime.metadata import KEY
from vl2v_runtime.names import cell

NAMES = ["=cmd|' /C calc'!A0", '@SUM(1)*HYPERLINK("http://attacker.invalid")', "-1+1|x"]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    PICTURE.save(tmp_path / "a.png")
    return tmp_path / "a.png"


def exported(tmp_path: Path) -> Path:
    def rename(model: onnx.ModelProto) -> None:
        entry = next(entry for entry in model.metadata_props if entry.key == KEY)
        entry.value = json.dumps(json.loads(entry.value) | {"classes": NAMES})

    return changed(make_exported(tmp_path / "good.onnx"), tmp_path / "model.onnx", rename)


def labels(text: str) -> Iterator[str]:
    return (row["label"] for row in csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat", "cat"),
        ("", ""),
        ("-1", "-1"),
        ("+1,5", "+1,5"),
        ("-", "'-"),
        ("=1", "'=1"),
        ("\t=1", "'\t=1"),
        ("é=", "é="),
    ],
)
def test_a_formula_is_preceded_by_an_apostrophe(text: str, expected: str) -> None:
    assert cell(text) == expected


def test_predictions_contain_no_formula(tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = student_of().save(tmp_path / "student")
    change(folder / "student.json", lambda card: card | {"classes": NAMES})
    (label,) = labels(run_cli("predict", folder, picture, "--format", "csv").stdout)
    assert label in [f"'{name}" for name in NAMES]
    assert main([str(exported(tmp_path)), str(picture), "--format", "csv"]) == 0
    (label,) = labels(capsys.readouterr().out)
    assert label in [f"'{name}" for name in NAMES]


def test_figures_of_a_report_contain_no_formula(tmp_path: Path) -> None:
    Sheet("recall", ("class", "recall"), [(NAMES[0], -0.5)]).write(tmp_path)
    assert (tmp_path / "recall.csv").read_text() == f"class,recall\n'{NAMES[0]},-0.5\n"


@pytest.mark.parametrize("form", ["csv", "json", "table"])
def test_file_names_are_escaped_for_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    model = make_exported(tmp_path / "model.onnx")
    PICTURE.save(tmp_path / "a\x1b[31m\x9b2J.png")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main([str(model), str(tmp_path), "--format", form]) == 0
    out = capsys.readouterr().out
    assert "2J.png" in out
    assert not {"\x1b", "\x9b"} & set(out)
