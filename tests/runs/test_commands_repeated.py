"""`vl2v final`, `vl2v repair` and `vl2v data suspects`, interrupted or repeated with other options."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vl2v.cli.common import guarded
from vl2v.commands import final as final_module
from vl2v.commands.classes import _locked
from vl2v.commands.final import final
from vl2v.commands.repair_checks import is_begun
from vl2v.commands.suspects import _decisions
from vl2v.errors import ConfigError, Interrupted, RunError
from vl2v.evaluation.evaluation import DomainScore, Evaluation
from vl2v.runs.folder import CHECKED, REPAIR, TRAINED, RunFolder
from vl2v.settings import make_config

SETTINGS: dict[str, Any] = {"data": {"root": "data", "held_out": ["rose"]}, "teacher": {"spec": "offline:"}}
SETTINGS["student"] = {"spec": "offline:"}


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run with the files that `final` reads: settings and evaluation."""
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "first")
    folder.create(make_config(None, SETTINGS))
    folder.evaluation_file.touch()
    evaluation = Evaluation((DomainScore("rose", "out-of-domain", 10, 0.5),))
    monkeypatch.setattr(final_module, "evaluation_of_run", lambda _: (evaluation, None))
    return folder.path


def test_a_stopped_final_run_continues(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[bool, Any]] = []

    def killed(config: Any, out: Path, *, resume: bool, **_: Any) -> None:
        calls.append((resume, config.budget))
        if not resume:
            RunFolder(out).create(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(final_module, "run", killed)
    out = tmp_path / "final"
    for budget in (None, "2"):
        with pytest.raises(KeyboardInterrupt):
            final(first, out, budget=budget)
    assert [resume for resume, _ in calls] == [False, True]
    assert str(calls[1][1]) == "2"
    assert json.loads((out / "expected.json").read_text())["domains"] == ["rose"]
    monkeypatch.setattr(final_module, "run", lambda *_, **__: SimpleNamespace())
    assert final(first, out)[1].domains == ("rose",)
    first.rename(tmp_path / "other")
    with pytest.raises(RunError, match="was made from another run"):
        final(tmp_path / "other", out)


def test_a_final_run_does_not_continue_other_runs(first: Path, tmp_path: Path) -> None:
    RunFolder(tmp_path / "out").create(make_config(None, SETTINGS))
    with pytest.raises(RunError, match="is not empty"):
        final(first, tmp_path / "out")
    with pytest.raises(RunError, match="inside the folder of images"):
        final(first, tmp_path / "data" / "out")
    assert not (tmp_path / "data" / "out").exists()


def test_a_repair_with_other_options_is_another_repair(tmp_path: Path) -> None:
    options = {"first_run": "first", "images": "site", "queries": 50, "settings": {"distill": {"steps": 3}}}
    assert not is_begun(tmp_path, options)
    (tmp_path / REPAIR).write_text(json.dumps({"first_run": "first", "images": "site"}))
    assert not is_begun(tmp_path, options), "without its lists of images, it has not begun"
    for name in (TRAINED, CHECKED):
        (tmp_path / name).touch()
    assert is_begun(tmp_path, options), "an earlier version did not record the options"
    (tmp_path / REPAIR).write_text(json.dumps(options))
    assert is_begun(tmp_path, options)
    changes: list[dict[str, Any]] = [{"queries": 20}, {"settings": {}}, {"images": "other"}]
    for change in changes:
        with pytest.raises(RunError, match="contains another repair"):
            is_begun(tmp_path, options | change)
    (tmp_path / REPAIR).write_text("{}")
    with pytest.raises(RunError, match="first_run None"):
        is_begun(tmp_path, options)


def test_the_page_for_review_replaces_no_other_page(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("of a run")
    with pytest.raises(ConfigError, match=r"report\.html exists, and is not replaced"):
        _decisions(tmp_path / "report.csv")
    (tmp_path / "a.html").mkdir()
    with pytest.raises(IsADirectoryError):
        _decisions(tmp_path / "a.csv")
    assert _decisions(tmp_path / "new.csv") == {}


def test_a_student_in_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "student.json").touch()
    monkeypatch.chdir(tmp_path / "only")
    with _locked(".") as folder:
        assert folder.resolve() == tmp_path / "only"
    assert not [path for path in (tmp_path / "only").iterdir() if path.name != "student.json"]


@pytest.mark.parametrize(("name", "step"), [("final", "repeat the command"), ("distill", "--resume")])
def test_ctrl_c_is_followed_by_the_command_to_continue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, step: str
) -> None:
    def command(out: Path) -> None:
        raise KeyboardInterrupt

    (tmp_path / "config.yaml").touch()
    command.__name__ = name
    with pytest.raises(Exception) as stopped:  # noqa: PT011 - typer's Exit
        guarded(command)(out=tmp_path)
    assert getattr(stopped.value, "exit_code", None) == Interrupted("").exit_code
    assert step in " ".join(capsys.readouterr().err.split())
