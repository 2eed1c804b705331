"""An untrusted run is not continued, repaired or retrained with the teacher, cache and store that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import platformdirs
import pytest
import yaml
from made_folder import change
from tiny_dataset import Bench, Runs
from watching import watched

from command_line import Done, run_cli
from vl2v.errors import RunError, TeacherError
from vl2v.runs.folder import RunFolder
from vl2v.runs.signatures import sign_teacher
from vl2v.runs.storage import teacher_signature

ADDRESS = "https://attacker.invalid/v1"
COMMANDS = ("final", "repair", "repair --quote", "resume", "resume at once")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VL2V_API_KEY", "precious")


def user_files(runs: Runs, bench: Bench) -> tuple[Path, ...]:
    """Return files of the user that commands read."""
    return bench.root, runs.get().folder.parent, Path(platformdirs.user_data_dir("vl2v"))


def edited(run: Path, **teacher: Any) -> Path:
    """Change the teacher in the settings of a run."""
    path = run / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["teacher"] |= teacher
    path.write_text(yaml.safe_dump(settings))
    return run


def started(command: str, run: Path, bench: Bench, *more: str) -> Done:
    """Return the message of a command on a run."""
    if command == "resume at once":  # before there is a student
        for name in ("student/student.json", "evaluation.json", "state.safetensors"):
            (run / name).unlink()
    name, _, flag = command.partition(" ")
    words: dict[str, list[str | Path]] = {
        "final": ["final", run, "--out", run.with_name("new"), "--no-report"],
        "repair": ["repair", run, bench.data / "rose", "--queries", "5", "--out", run.with_name("new"), "--no-report"],
        "resume": ["distill", "--out", run, "--resume", "--no-report"],
    }
    return run_cli(*words[name], *([flag] if flag == "--quote" else []), "-q", *more)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_url_of_an_untrusted_run_is_not_contacted(runs: Runs, bench: Bench, tmp_path: Path, command: str) -> None:
    run = edited(runs.get().copy(tmp_path / "run"), spec=ADDRESS, free=True)
    with watched(tmp_path, *user_files(runs, bench)) as events:
        done = started(command, run, bench)
    assert (done.returncode, events) == (TeacherError.exit_code, [])
    assert f"--teacher '{ADDRESS}'" in done.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", COMMANDS[:2])
def test_prompts_are_not_read_from_a_file_for_the_teacher_of_the_user(
    runs: Runs, bench: Bench, tmp_path: Path, command: str
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("password {}")
    run = edited(runs.get().copy(tmp_path / "run"), prompts=str(secret))
    with watched(run, *user_files(runs, bench)) as events:
        done = started(command, run, bench, "--teacher", bench.teacher)
    assert (done.returncode, events) == (TeacherError.exit_code, [])
    assert "teacher.prompts" in done.stderr


def test_a_stated_teacher_is_opened_and_then_the_run_is_trusted(runs: Runs, bench: Bench, tmp_path: Path) -> None:
    run = runs.get().copy(tmp_path / "run")
    for name in ("places.json", "student/student.json"):
        change(
            run / name, lambda values: {k: v for k, v in values.items() if k not in ("provenance", "teacher_signature")}
        )
    folder = RunFolder(run)
    assert started("resume", run, bench).returncode == TeacherError.exit_code
    assert teacher_signature(run) is None
    assert started("resume", run, bench, "--teacher", "file:other.npz").returncode == TeacherError.exit_code
    done = started("resume", run, bench, "--teacher", bench.teacher)
    assert done.returncode == 0, done.stderr
    assert teacher_signature(run) == sign_teacher(folder.written_config())
    assert started("resume", run, bench).returncode == 0


def test_a_run_signed_by_its_student_alone_is_continued(runs: Runs, bench: Bench, tmp_path: Path) -> None:
    """As written by versions without a signature in places.json."""
    run = runs.get().copy(tmp_path / "run")
    change(run / "places.json", lambda values: {k: v for k, v in values.items() if k != "teacher_signature"})
    assert started("resume", run, bench).returncode == 0


def test_nothing_is_written_to_paths_of_an_untrusted_run(runs: Runs, bench: Bench, tmp_path: Path) -> None:
    run = runs.get().copy(tmp_path / "run")
    named = {"cache": str(tmp_path / "precious"), "store": str(tmp_path / "its.sqlite")}
    change(run / "places.json", lambda values: values | named)
    done = started("resume", run, bench)
    assert done.returncode == RunError.exit_code
    assert f"--cache {tmp_path / 'precious'} --store {tmp_path / 'its.sqlite'}" in done.stderr
    assert not (tmp_path / "precious").exists()
    assert not (tmp_path / "its.sqlite").exists()
    storage_options = bench.flags()
    assert started("resume", run, bench, *storage_options).returncode == 0
