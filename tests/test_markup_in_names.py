"""Names that a terminal or Rich would interpret are shown literally by every command."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vl2v import terminal
from vl2v.cli import app
from vl2v.cli.common import make_progress
from vl2v.cli.console import LogLines, RichBars
from vl2v.progress import Recorder, Silent, Vl2vWarning, warn
from vl2v.terminal import clean, console, dump_json
from vl2v_runtime.terminal import is_unicode

NAMES = ["[bold]", "[italic]", "[red]x[-red]", ":smile:"]  # the name of a folder has no slash; see SLASHED
SLASHED = ["[/bold]", "[red]x[/red]"]
SOURCES = Path(terminal.__file__).parent


def run(*arguments: object, code: int = 0) -> str:
    """Return the complete output of a command."""
    done = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "300"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for domain in NAMES[:2]:
        for kind in NAMES:
            folder = tmp_path / "photos [old]" / domain / kind
            folder.mkdir(parents=True)
            for i in range(3):
                Image.fromarray(generator.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / f"[i]{i}.png")
    return tmp_path / "photos [old]"


def test_tables_titles_and_lines_show_markup(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Group
    from rich.table import Table

    from vl2v.cli.printing import show

    table = Table(title="[bold]title[/bold]", caption="[/red]")
    table.add_column("[/head]")
    for name in [*NAMES, *SLASHED, "\x1b[31mred\x1b[0m\x07", "a\u202eb"]:
        table.add_row(name)
    show(Group(table, "[/line] \x1b]0;title\x07"))
    output = capsys.readouterr().out
    for name in (*NAMES, *SLASHED, "[bold]title[/bold]", "[/head]", "[/line]", "\\x1b[31mred", "\\u202e"):
        assert name in output
    assert "\x1b" not in output
    assert "\x07" not in output


def test_a_narrow_window_still_shows_names(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.table import Table

    from vl2v.cli.printing import show

    monkeypatch.setenv("COLUMNS", "10")
    table = Table()
    for name in ("image", "class", "confidence"):
        table.add_column(name)
    table.add_row("photos/ball/1.png", "ball", "0.9")
    show(table)
    assert "photos/ball/1.png" in capsys.readouterr().out


def test_progress_and_notes_show_markup() -> None:
    stream = io.StringIO()
    bars = RichBars(console(file=stream, force_terminal=True, width=120))
    with bars.stage("[/bold] \x1b[2J", 2) as advance:
        advance(2)
    bars.note("[/red]")
    log = LogLines(stream)
    log.note("[/blue] \x1b[2J")
    output = stream.getvalue()
    for text in ("[/bold] \\x1b[2J", "[/red]", "[/blue] \\x1b[2J"):
        assert text in output


def test_json_output_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"name": "\x1b[31m\x9b\u202e é 日本 [/bold]"}
    assert json.loads(dump_json(value)) == value
    assert "\x9b" not in dump_json(value)
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as ascii_only:
        monkeypatch.setattr("sys.stdout", ascii_only)
        assert json.loads(dump_json(value)) == value
        assert dump_json(value).isascii()
        assert not is_unicode(ascii_only)


def test_a_folder_of_such_names(photos: Path, tmp_path: Path) -> None:
    storage_options = ["--cache", tmp_path / "[c]", "--store", tmp_path / "[s].sqlite"]
    texts = [f"a photo of a {name.replace('_', ' ')}" for name in sorted(NAMES)]
    paths = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    generator = np.random.default_rng(0)
    images, words = (generator.normal(size=(n, 8)).astype(np.float32) for n in (len(paths), len(texts)))
    file = tmp_path / "[t].npz"
    np.savez(file, paths=paths, embeddings=images, texts=texts, text_embeddings=words, logit_scale=20.0)
    assert "[t].npz" in run("quote", photos, "--teacher", f"file:{file}", *storage_options)
    assert "[/bold]" in run("quote", photos, "--teacher", "file:[/bold]", *storage_options, code=4)
    assert "[/bold]" in run(
        "quote", photos, "--teacher", f"file:{file}", "--held-out", "[/bold]", *storage_options, code=2
    )
    arguments: dict[str, list[object]] = {"predict": [photos], "evaluate": [photos, *storage_options[:2]]}
    arguments["push"] = ["user/name", "--dry-run"]
    for command in ("predict", "evaluate", "trust", "report", "serve", "export", "push"):
        more = arguments.get(command, [])
        done = CliRunner().invoke(app, [command, str(tmp_path / "[/bold]"), *[str(part) for part in more]])
        assert isinstance(done.exception, SystemExit), (command, done.exception)
        assert "[/bold]" in done.output, command
    shutil.rmtree(photos / NAMES[0])


def test_only_one_module_prints() -> None:
    """Another console of Rich would read markup, and print would send control characters."""
    prints = []
    for file in SOURCES.rglob("*.py"):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(r"(?<![\w.])Console\((?!Console\))", line) and file.name != "terminal.py":
                prints.append(f"{file.relative_to(SOURCES)}:{number} {line.strip()}")
            if re.search(r"(?<![\w.])print\(.*\b(name|path|folder|text|error)\b", line) and "clean(" not in line:
                prints.append(f"{file.relative_to(SOURCES)}:{number} {line.strip()}")
    assert prints == []


@pytest.mark.parametrize("as_json", [True, False])
def test_quiet_hides_progress_and_no_warning(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    progress = make_progress(quiet=True, as_json=as_json)
    progress.note("a note")
    with progress.stage("reading", 3) as advance:
        advance(3)
    warn(progress, "ten images stand in both")
    output = capsys.readouterr().err
    assert "ten images" in output
    assert output.count("\n") == 1
    assert not as_json or json.loads(output)["text"] == "warning: ten images stand in both"


def test_python_gets_a_warning_that_the_run_stores() -> None:
    progress = Recorder(Silent())
    with pytest.warns(Vl2vWarning, match="ten images") as caught:
        warn(progress, "ten images stand in both")
    assert len(caught) == 1
    assert progress.warnings == ["ten images stand in both"]


def test_progress_of_the_user_receives_notes() -> None:
    output = []

    class Mine(Silent):
        warn = None  # type: ignore[assignment]

        def note(self, text: str) -> None:
            output.append(text)

    warn(Mine(), "x")
    assert output == ["warning: x"]


def test_cleaned_text_has_the_same_lines_and_letters() -> None:
    text = "näïve 日本\n\ttab"
    assert clean(text) == text
    assert clean("\x00\x7f\x85\u2066") == "\\x00\\x7f\\x85\\u2066"
