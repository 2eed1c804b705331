from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_files import files_of, home, image, small, zipped  # noqa: F401 - a fixture
from test_benchmarks import laid_out
from test_benchmarks_download import environment
from typer.testing import CliRunner, Result

from vl2v.cli import app
from vl2v.datasets import facts as benchmark_table
from vl2v.datasets import registry as benchmarks
from vl2v.datasets.facts import BENCHMARKS, PACS, Benchmark

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "benchmark-data.md"


def run(*words: str | Path, answer: str | None = None) -> Result:
    """Run `vl2v data ...`; standard input is not a terminal."""
    return CliRunner().invoke(app, ["data", *map(str, words)], input=answer, catch_exceptions=False)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    """Replace PACS with two images per class."""
    benchmark = small(PACS)
    for module in (benchmarks, benchmark_table):
        monkeypatch.setattr(module, "BENCHMARKS", (benchmark,))
    benchmarks._checked.cache_clear()
    return benchmark


def test_list_shows_counts_size_source_and_terms() -> None:
    done = run("list")
    assert done.exit_code == 0
    for benchmark in BENCHMARKS:
        assert f"{benchmark.name}: {benchmark.total:,} images, {benchmark.class_count} classes" in done.stdout
        assert benchmark.licence in done.stdout
        assert benchmark.source in done.stdout
    entries = json.loads(run("list", "--json").stdout)
    assert {entry["name"]: entry["images"] for entry in entries} == {b.name: b.total for b in BENCHMARKS}
    assert entries[0]["domains"] == PACS.images


def test_without_a_terminal_the_terms_must_be_accepted_by_a_flag(tmp_path: Path) -> None:
    done = run("get", "PACS", "--out", tmp_path / "out", answer="y\n")
    assert done.exit_code == 2
    assert PACS.licence in done.stderr
    assert "--yes, since there is no terminal to ask on" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.system
@pytest.mark.parametrize(("answer", "code"), [("n", 2), ("y", 3)])
def test_on_a_terminal_the_command_asks_for_acceptance(tmp_path: Path, answer: str, code: int) -> None:
    pty = pytest.importorskip("pty")
    controller, terminal = pty.openpty()
    words = ["get", "PACS", "--out", str(tmp_path / "out"), "--from", "http://127.0.0.1:1/PACS.zip"]
    os.write(controller, f"{answer}\n".encode())
    done = subprocess.run(
        [sys.executable, "-m", "vl2v", "data", *words],
        stdin=terminal, capture_output=True, text=True, env=environment(XDG_DATA_HOME=str(tmp_path)),
    )  # fmt: skip
    os.close(controller)
    os.close(terminal)
    assert done.returncode == code, done.stderr  # after yes, the URL has no file
    assert f"Download about {PACS.download_bytes / 1e6:.1f} MB under these terms?" in done.stderr
    assert ("were not accepted; nothing was downloaded" in done.stderr) == (answer == "n")
    assert ("cannot be downloaded" in done.stderr) == (answer == "y")
    assert not (tmp_path / "out").exists()


def test_local_files_need_no_acceptance_and_the_terms_are_shown(tmp_path: Path, tiny: Benchmark) -> None:
    source = zipped(tmp_path / "PACS.zip", files_of(tiny))
    done = run("get", "pacs", "--out", tmp_path / "out", "--from", source)
    assert done.exit_code == 0, done.stderr
    assert PACS.licence in done.stderr
    assert "56 images (art_painting 14, cartoon 14, photo 14, sketch 14)" in done.stdout
    digest = json.loads((tmp_path / "out" / "benchmark.json").read_text())["digest"]
    assert f"digest   {digest}" in done.stdout
    checked = run("check", "PACS", tmp_path / "out")
    assert checked.exit_code == 0
    assert f"digest {digest}: unchanged" in checked.stdout


def test_the_default_folder_is_in_the_data_of_the_user(
    tmp_path: Path, home: Path, tiny: Benchmark
) -> None:  # fmt: skip
    done = run("get", "PACS", "--from", zipped(tmp_path / "PACS.zip", files_of(tiny)), "--json")
    assert done.exit_code == 0, done.stderr
    folder = home / "vl2v" / "benchmarks" / "PACS"
    assert json.loads(done.stdout)["folder"] == str(folder)
    assert benchmarks.resolve("PACS") == folder


def test_a_check_of_wrong_data_ends_with_3(tmp_path: Path, tiny: Benchmark) -> None:
    folder = laid_out(tmp_path / "PACS", tiny)
    assert run("check", "PACS", folder).exit_code == 0
    (folder / "photo" / "dog" / "0.png").write_bytes(b"")
    (folder / "photo" / "dog" / "1.png").unlink()
    done = run("check", "PACS", folder)
    assert done.exit_code == 3
    assert "photo: expected 14 images, found 13 images" in done.stdout
    assert "photo/dog/0.png: empty file" in done.stdout
    assert done.stdout.endswith("NOT VALID\n")
    result = json.loads(run("check", "PACS", folder, "--json").stdout)
    assert result["unreadable"] == [{"file": "photo/dog/0.png", "problem": "empty file"}]
    assert result["right"] is False


def test_a_file_that_changed_since_the_download_is_reported(tmp_path: Path, tiny: Benchmark) -> None:
    run("get", "PACS", "--out", tmp_path / "out", "--from", zipped(tmp_path / "PACS.zip", files_of(tiny)))
    (tmp_path / "out" / "photo" / "dog" / "0.png").write_bytes(image(4321))
    done = run("check", "PACS", tmp_path / "out")
    assert done.exit_code == 3
    assert "CHANGED, was" in done.stdout


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path, tiny: Benchmark) -> None:
    (tmp_path / "file").write_text("mine")
    source = zipped(tmp_path / "PACS.zip", files_of(tiny))
    done = run("get", "PACS", "--out", tmp_path / "file" / "out", "--from", source)
    assert done.exit_code == 2
    assert "PACS cannot be put in" in done.stderr


def test_with_json_every_line_of_progress_is_json(tmp_path: Path, tiny: Benchmark) -> None:
    done = run("get", "PACS", "--out", tmp_path / "o", "--from", zipped(tmp_path / "p.zip", files_of(tiny)), "--json")
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert events == ["terms", "stage", "end"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("get", "ImageNet"), 2, "Unknown benchmark."),
        (("check", "ImageNet", "."), 2, "vl2v data list"),
        (("check", "PACS", "none"), 3, "contains no benchmark"),
        (("get", "PACS", "--from", "none.zip"), 2, "Unknown source in --from"),
        (("get", "VLCS", "--from", "hub"), 2, "--from official"),
    ],
)
def test_wrong_arguments_are_errors_without_a_traceback(words: tuple[str, ...], code: int, message: str) -> None:
    done = run(*words)
    assert done.exit_code == code
    assert message in done.stderr
    assert "next: " in done.stderr or "expected: " in done.stderr


def test_every_command_of_the_page_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [re.sub(r"\s+#.*", "", line.strip()) for line in text.splitlines() if line.startswith("    vl2v data ")]
    assert {line.split()[2] for line in lines} == {"list", "get", "check"}
    monkeypatch.chdir(tmp_path)
    for line in lines:
        done = run(*line.split()[2:], "--help")
        assert done.exit_code == 0, line
        options = [word for word in line.split() if word.startswith("--")]
        assert all(option in done.stdout for option in options), line
