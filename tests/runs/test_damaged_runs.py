"""Commands on a finished run with a file that is missing or cut off: they work, or say what is wrong and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_dataset import Bench, Runs
from typer.testing import CliRunner

from vl2v.cli import app
from vl2v.commands.trust import read_answers
from vl2v.errors import ConfigError, RunError, StudentError
from vl2v.onnx_export.exported import EXPORT, REPORT
from vl2v.runs.folder import RunFolder
from vl2v.student.files import read_card

FILES = [
    "config.yaml", "evaluation.json", "predictions.npz", "places.json", "metrics.jsonl", "state.safetensors",
    "student/student.json", "student/model.safetensors", "student/trust.json",
]  # fmt: skip
COMMANDS: dict[str, tuple[str, ...]] = {
    "evaluate": ("evaluate", "RUN", "DATA"),
    "trust": ("trust", "RUN"),
    "export": ("export", "RUN", "--out", "OUT"),
    "final": ("final", "RUN", "--out", "OUT", "--store", "STORE"),
    "repair": ("repair", "RUN", "NEW", "--out", "OUT", "--budget", "1", "--store", "STORE"),
}


def begin(*_: object, **__: object) -> None:
    """End the command when the checks are over and the long work begins."""
    raise SystemExit(0)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.fixture
def run(runs: Runs, tmp_path: Path) -> Path:
    return runs.get().copy(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_outcome_is_work_or_a_message(
    bench: Bench, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    for name in ("final.run", "repair.train_run", "export._write_files"):
        monkeypatch.setattr(f"vl2v.commands.{name}", begin)
    worked = 0
    for file in FILES:
        damages: tuple[Callable[[Path], None], ...] = (Path.unlink, cut)
        for i, damage in enumerate(damages):
            place = tmp_path / file.replace("/", "-") / str(i)
            run, out = runs.get().copy(place / "run"), place / "out"
            damage(run / file)
            paths = {"RUN": run, "OUT": out, "DATA": bench.data, "NEW": bench.data / "rose", "STORE": place / "store"}
            done = CliRunner().invoke(app, [str(paths.get(word, word)) for word in COMMANDS[command]])
            if done.exit_code == 0:
                worked += 1
                continue
            assert isinstance(done.exception, SystemExit), (file, done.exception)
            said = [re.search(rf"^  {part}: \S", done.stderr, re.MULTILINE) for part in ("found", "next")]
            assert all(said) or "faults in" in done.stderr, (file, done.stderr)
    assert worked >= 8


def test_settings_that_are_cut_off_do_not_become_the_defaults(run: Path) -> None:
    folder = RunFolder(run)
    text = folder.config_file.read_text()
    folder.config_file.write_text(text[: text.index("seed: ")])
    with pytest.raises(ConfigError, match=r"config.yaml is incomplete(.|\n)*copy it again"):
        folder.config()


def test_advice_names_the_command_that_writes_the_file_again(run: Path) -> None:
    again = rf"vl2v distill --out {run} --resume"
    (run / "predictions.npz").unlink()
    with pytest.raises(RunError, match=again):
        read_answers(RunFolder(run))
    card = run / "student" / "student.json"
    cut(card)
    with pytest.raises(StudentError, match=rf"cannot be read(.|\n)*delete the folder student(.|\n)*{again}"):
        read_card(card.parent)
    card.unlink()
    for folder in (run, card.parent):
        with pytest.raises(StudentError, match=rf"finish it: {again}"):
            read_card(folder)


@pytest.mark.slow
def test_a_damaged_report_of_an_export_is_replaced(run: Path) -> None:
    (run / EXPORT).mkdir()
    (run / EXPORT / REPORT).write_text("{")
    done = CliRunner().invoke(app, ["export", str(run), "-q"])
    assert done.exit_code == 0, done.stderr
