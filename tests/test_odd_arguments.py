"""Wrong arguments of scripts give a message that names them, and no traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from command_line import run_cli
from vl2v.cli import app
from vl2v_runtime.__main__ import main


def run(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*map(str, words)])
    assert isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.replace("│", " ").split())


@pytest.mark.parametrize(
    "words",
    [
        ["quote", "", "--teacher", "offline:"],
        ["predict", "run", ""],
        ["predict", "", "photo.png"],
        ["export", "run", "--out", ""],
        ["report", "run", "--out", ""],
        ["classes", "add", "run", ""],
        ["benchmark", "table", ""],
    ],
)
def test_an_empty_argument_is_not_the_current_folder(words: list[str]) -> None:
    code, text = run(*words)
    assert code == 2
    assert f"The argument after {words[words.index('') - 1]} is empty" in text


def test_the_runtime_refuses_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["", "x.png"], ["model.onnx", ""]):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert "the path is empty" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
@pytest.mark.parametrize("below", ["", "run"])
def test_an_output_folder_behind_circular_links_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), "teal").save(tmp_path / "data" / name / "0.png")
    out = tmp_path / "loop" / below
    storage_options: list[str | Path] = ["--cache", tmp_path / "cache", "--store", tmp_path / "s.sqlite"]
    words: list[str | Path] = ["--teacher", "offline:", "--student", "offline:", "--out", out, *storage_options]
    code, text = run("distill", tmp_path / "data", *words)
    assert code == 13, text
    assert "a loop of links" in text
    assert "another folder: --out FOLDER" in text


@pytest.mark.parametrize("name", ["hf:", "hf:../../etc", "hf:a/b/c", "hf:a b", "hf:@main"])
def test_a_wrong_repository_name_is_not_looked_up(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 8), "teal").save(tmp_path / "0.png")
    code, text = run("predict", name, tmp_path)
    assert code == 12
    assert "not the name of a repository" in text
    assert "licen" not in text


def test_a_missing_run_is_reported_before_a_missing_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vl2v.hub.push.get_token", lambda: None)
    code, text = run("push", tmp_path / "no", "me/student")
    assert code == 8
    assert "contains no run" in text


def test_the_runtime_reports_what_is_instead_of_a_model_or_an_image(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["/dev/zero", str(Path(__file__))]) != 0
    assert "/dev/zero is not a file" in capsys.readouterr().err
    for words in (["https://a.org/m.onnx", str(Path(__file__))], ["m.onnx", "https://a.org/m.onnx"]):
        assert main(words) != 0
        assert "https://a.org/m.onnx" in capsys.readouterr().err


def test_a_file_instead_of_a_student_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    code, text = run("export", tmp_path / "file")
    assert code == 6
    assert "contains no student" in text


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["quote", "photos"], ["--teacher"]),
        (["distill", "photos"], ["--teacher", "--student"]),
        (["distill", "photos", "--student", "offline:"], ["--teacher"]),
        (["distill"], ["DATA", "--teacher", "--student"]),
    ],
)
def test_all_missing_arguments_are_named_at_once(words: list[str], missing: list[str]) -> None:
    done = run_cli(*words)
    assert done.returncode == 2
    problem, expected, _, step = (line.strip() for line in done.stderr.splitlines())
    assert problem == f"error: {', '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing."
    assert all(flag in expected for flag in missing if flag != "DATA")
    assert "--teacher offline:" in step
    assert ("--student offline:" in step) == ("--student" in missing)
