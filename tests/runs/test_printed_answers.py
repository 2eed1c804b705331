"""The output of `vl2v predict`, `quote` and the end of a run, with names of every kind."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path

import pytest
from exported import student_of
from odd_images import colours, encoded

from vl2v.cli.printing import _try_it, show, show_answers
from vl2v.commands.evaluate import Answer, classify
from vl2v.commands.given_images import find_images
from vl2v.data.contents import Contents, DomainContents
from vl2v.errors import RunError
from vl2v.json_files import write_json
from vl2v.runs.folder import RunFolder
from vl2v.teacher.base import Price
from vl2v.teacher.purchase.ledger import Quote
from vl2v.training.student import printable_paths

ANSWERS = [Answer("gr\udcfcn.png", "cat", 0.75, accepted=False, probabilities={"cat": 0.75, "dog": 0.25})]
ANSWERS += [Answer("a\nb.png", "", 0.0, "empty file")]


def test_predict_names_its_fields_as_the_runtime_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_answers(ANSWERS, "csv") == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(rows[0]) == ["path", "label", "confidence", "accepted", "fault"]
    assert rows[0]["path"] == r"gr\xfcn.png"
    assert [row["accepted"] for row in rows] == ["no", ""]
    show_answers(ANSWERS, "json")
    first, second = json.loads(capsys.readouterr().out)
    assert list(first)[:6] == ["path", "label", "confidence", "accepted", "fault", "probabilities"]
    assert first["probability"] == first["confidence"] == 0.75
    assert second["fault"] == "empty file"


def test_a_table_of_odd_names_is_printed_on_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    show_answers([*ANSWERS, Answer("[bold]x\x1b[2J.png", "dog", 0.5)], "table")
    shown = capsys.readouterr().out
    assert r"gr\xfcn.png" in shown
    assert r"a\nb.png" in shown
    assert r"[bold]x\x1b[2J.png" in shown
    assert shown.count("accepted") == shown.count("unsure") == 1
    show_answers([Answer("x.png", "dog", 0.5, accepted=True)], "table")
    assert capsys.readouterr().out.count("yes") == 1
    show_answers([Answer("x.png", "dog", 0.5)], "table")
    assert "accepted" not in capsys.readouterr().out


def test_json_with_a_path_that_is_not_utf_8_is_still_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show({"run": "r\udcfcn", "é": 1})
    assert json.loads(capsys.readouterr().out)["run"] == "r\udcfcn"
    write_json(tmp_path / "a.json", {"root": "gr\udcfcn"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"root": "gr\udcfcn"}


def test_the_suggested_command_can_be_pasted_into_a_shell() -> None:
    assert _try_it(Path("runs/[new] one")).plain == "try it:  vl2v predict 'runs/[new] one' <image or folder>"
    assert _try_it(Path("runs/first")).plain == "try it:  vl2v predict runs/first <image or folder>"


def test_a_quote_shows_how_the_data_were_read(capsys: pytest.CaptureFixture[str]) -> None:
    domains = (DomainContents("a[b]", 3, 2, 1, 2, False), DomainContents("line", 2, 2, 1, 1, True))
    contents = Contents("photos", domains, ("cat", "dog"), images=5)
    quote = Quote("t", {"training": 3}, {"training": 0}, 2, 0, Price(Decimal(0), Decimal(0)), {}, contents=contents)
    show(quote.table())
    text = capsys.readouterr().out
    assert "photos: 2 domains, 2 classes, 5 images" in text
    assert "  a[b]: 3 images, 1 to 2 of each class" in text
    assert quote.to_dict()["data"]["classes"] == ["cat", "dog"]


def test_a_student_accepts_folders_and_streams_and_predict_reports_skipped_files(tmp_path: Path) -> None:
    student = student_of(head=False)
    data = encoded(colours(), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "b").write_bytes(data)
    alone = student.predict(data)
    assert student.predict(io.BytesIO(data)) == alone
    assert student.predict(tmp_path) == alone * 2
    (tmp_path / "c.tga").write_bytes(encoded(colours(), "TGA"))
    images, notes = find_images([tmp_path])
    assert len(images) == 2
    assert notes[0].endswith("skipped c.tga: an unsupported format (.tga)")
    answers, _ = classify(student, images, every_class=True)
    assert sum(answers[0].probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_a_run_folder_with_an_unusable_name_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"r\\xfcn"):
        RunFolder(tmp_path / "r\udcfcn").check_free()
    settings = printable_paths({"data": {"root": "fot\udcf6s", "held_out": ["line"]}, "seed": 1})
    assert settings == {"data": {"root": r"fot\xf6s", "held_out": ["line"]}, "seed": 1}
