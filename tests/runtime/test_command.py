from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
import typer
from exported import CLASSES, Exported, cosine, picture  # noqa: F401 - a fixture
from test_model import TRUST
from typer.testing import CliRunner

import vl2v_runtime
from vl2v.cli import app
from vl2v.cli.common import guarded
from vl2v.cli.predict import predict
from vl2v.onnx_export.onnx import rewrite_trust
from vl2v_runtime.__main__ import main


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        picture(i).save(folder / f"{i}.png")
    (folder / "1b.jpg").write_bytes(b"")
    return folder


def test_both_commands_print_their_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert not ended.value.code
    assert capsys.readouterr().out == f"vl2v-runtime {vl2v_runtime.__version__}\n"
    assert CliRunner().invoke(app, ["--version"]).output == f"vl2v {vl2v_runtime.__version__}\n"


def test_predictions_are_printed_as_a_table_json_or_csv(
    cosine: Exported, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [photos / f"{i}.png" for i in range(3)]
    wanted = [answer.label for answer in vl2v_runtime.load(cosine.file).predict(good)]
    assert main([str(cosine.file), *map(str, good), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in rows] == wanted
    assert list(rows[0]["probabilities"]) == CLASSES
    assert main([str(cosine.file.parent), str(photos), "--format", "csv", "--batch-size", "2"]) == 3
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [Path(line["path"]).name for line in lines] == ["0.png", "1.png", "1b.jpg", "2.png"]
    assert [line["label"] for line in lines] == [wanted[0], wanted[1], "", wanted[2]]
    assert lines[2]["fault"] == "empty file"
    assert main([str(cosine.file), str(photos), "--threads", "1"]) == 3
    table = capsys.readouterr().out.splitlines()
    assert table[0].endswith(wanted[0])
    assert "not read: empty file" in table[2]


def test_uncertain_images_are_marked(
    cosine: Exported, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(cosine.file, tmp_path / "model.onnx")
    rewrite_trust(tmp_path / "model.onnx", TRUST.to_dict())
    assert main([str(tmp_path), str(photos / "0.png"), "--coverage", "0.5"]) == 0
    assert "(unsure)" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), str(photos / "0.png"), "--coverage", "0.123"])
    assert "0.123" in capsys.readouterr().err
    assert main([str(tmp_path), str(photos / "0.png"), "--format", "csv"]) == 0
    (line,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert line["accepted"] == "", "as in vl2v predict, images are only rejected with --coverage"


def test_wrong_arguments_are_explained(
    cosine: Exported, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "none.onnx"), str(photos)]) == 6
    assert "vl2v export" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    for code, wrong in ((3, ["gone.png"]), (3, [str(tmp_path / "empty")]), (6, [str(photos), "--coverage", "0.9"])):
        assert main([str(cosine.file), *wrong]) == code
        assert "error: " in capsys.readouterr().err


BAD_OPTIONS = [
    ("--coverage", "nan"),
    ("--coverage", "inf"),
    ("--coverage", ""),
    ("--coverage", "2"),
    ("--coverage", "-1"),
    ("--coverage", "0.123"),
    ("--coverage", "x"),
    ("--score", "entropy"),
    ("--score", ""),
    ("--format", "xml"),
    ("--format", ""),
]


@pytest.mark.parametrize(("option", "value"), BAD_OPTIONS)
def test_both_commands_treat_options_alike(
    cosine: Exported,
    photos: Path,
    tmp_path: Path,
    option: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`vl2v predict` and `vl2v-predict` refuse the same options with the same code before they read an image."""
    monkeypatch.setattr(cosine.student, "trust", TRUST)
    monkeypatch.setattr("vl2v.api.load", lambda _: cosine.student)
    shutil.copy(cosine.file, tmp_path / "model.onnx")
    rewrite_trust(tmp_path / "model.onnx", TRUST.to_dict())
    try:
        code = main([str(tmp_path / "model.onnx"), str(photos), option, value])
    except SystemExit as error:
        code = int(str(error.code))
    assert option in capsys.readouterr().err
    app = typer.Typer()
    app.command()(guarded(predict))
    done = CliRunner().invoke(app, ["run", str(photos), option, value])
    assert (code, done.exit_code) == (2, 2), done.output
    assert option in done.output


@pytest.mark.parametrize("number", ["0", "-1", "x", "", "3000000000", "9" * 20, "9" * 5000])
@pytest.mark.parametrize("option", ["--threads", "--batch-size"])
def test_numbers_outside_their_range_are_refused(
    cosine: Exported, photos: Path, option: str, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(cosine.file), str(photos), option, number])
    assert option in capsys.readouterr().err
