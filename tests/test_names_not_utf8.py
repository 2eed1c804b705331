"""Names that are not UTF-8, as an archive from another system leaves them: a message with a next step, no traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from vl2v.cli import app
from vl2v_runtime.__main__ import main

BAD = os.fsdecode(b"caf\xe9")
TINY = ["--student", "offline:", "--steps", "1", "--align-steps", "1"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    try:
        (tmp_path / BAD).mkdir()
    except OSError:
        pytest.skip("this file system takes no such name")
    for domain in ("ink", "rose"):
        for name in ("cat", "dog"):
            folder = tmp_path / "data" / domain / name
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8), "teal").save(folder / "0.png")
    return tmp_path


def refused(root: Path, code: int, *words: str | Path) -> str:
    storage_options = (
        ["--cache", str(root / "cache"), "--store", str(root / "s.sqlite")] if words[0] in ("quote", "distill") else []
    )
    done = CliRunner().invoke(app, [*map(str, words), *storage_options])
    assert isinstance(done.exception, SystemExit), done.exception
    text = done.output.encode("utf-8").decode()  # no stray byte is printed
    assert done.exit_code == code, text
    assert "Traceback" not in text
    assert r"caf\xe9" in text
    return text


@pytest.mark.parametrize("command", [["quote"], ["distill", "--out", "run", *TINY]])
@pytest.mark.parametrize("level", ["class", "domain"])
def test_classes_and_domains_are_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], level: str
) -> None:
    monkeypatch.chdir(root)
    folder = root / "data" / ("ink" if level == "class" else "") / BAD
    (folder if level == "class" else folder / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8), "teal").save((folder if level == "class" else folder / "cat") / "0.png")
    name, *options = command
    text = refused(root, 3, name, root / "data", "--teacher", "offline:", *options)
    assert f"a {level} name that is not UTF-8" in text
    assert "rename the folder" in text
    assert not (root / "run").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["distill", "{root}/data", "--teacher", "offline:", *TINY, "--out", "{bad}/run"],
        ["predict", "{bad}", "{root}/data"],
        ["evaluate", "{bad}", "{root}/data"],
        ["export", "{bad}"],
        ["export", "{root}/data", "--out", "{bad}"],
        ["report", "{bad}"],
        ["report", "{root}/data", "--out", "{bad}"],
        ["serve", "{bad}"],
        ["classes", "list", "{bad}"],
        ["classes", "add", "{bad}", "owl"],
        ["trust", "{bad}"],
        ["data", "draw", "{bad}/drawn"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_folders_of_runs_and_results_are_refused(root: Path, command: list[str]) -> None:
    words = [word.format(root=root, bad=root / BAD) for word in command]
    text = refused(root, 8, *words)
    for part in ("is not UTF-8", "expected: a path in UTF-8 for", "found:", "next: rename the folder"):
        assert part in " ".join(text.split())
    assert not list((root / BAD).iterdir())


def test_a_held_out_domain_and_a_teacher_file_are_refused(root: Path) -> None:
    text = refused(root, 2, "quote", root / "data", "--teacher", "offline:", "--held-out", BAD)
    assert "ink, rose" in text
    refused(root, 4, "quote", root / "data", "--teacher", f"file:{root / BAD / 't.npz'}")


def test_an_exported_file_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = root / BAD / "model.onnx"
    file.write_bytes(b"x")
    assert main([str(file), str(root / "data")]) == 6
    output = capsys.readouterr().err
    assert r"caf\xe9" in output
    assert "rename" in output
