"""Relative paths in the settings of a run are resolved from any folder, also after the run was moved or copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vl2v.config import RunConfig
from vl2v.locations import StoragePaths
from vl2v.runs.folder import RunFolder
from vl2v.runs.start_checks import resume_run
from vl2v.runs.storage import started_in
from vl2v.settings import make_config

PATHS = StoragePaths(Path("cache"), Path("vectors.sqlite"))


def made(project: Path, monkeypatch: pytest.MonkeyPatch, **data: str) -> RunFolder:
    """A run that was started in `project` with relative paths."""
    (project / "data" / "photo").mkdir(parents=True)
    (project / "photo").mkdir()  # has the name of the default prompts
    for name in ("teacher.npz", "student.pth", "prompts.txt", "suspects.csv"):
        (project / name).touch()
    monkeypatch.chdir(project)
    folder = RunFolder(Path("run"))
    folder.create(config(**data), PATHS)
    return RunFolder(folder.path.absolute())


def config(**data: str) -> RunConfig:
    return make_config(
        None,
        {
            "data": {"root": "data", "drop": "suspects.csv"} | data,
            "teacher": {"spec": "file:teacher.npz"},
            "student": {"spec": "timm:test_resnet@student.pth"},
        },
    )


def settings_of(folder: RunFolder) -> RunConfig:
    return folder.config().model_copy(update={"origin": ""})


def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    other = tmp_path / "elsewhere"
    other.mkdir(exist_ok=True)
    monkeypatch.chdir(other)
    return other


def test_paths_are_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    run = made(project, monkeypatch)
    assert settings_of(run) == config()  # in the folder itself, they are unchanged
    elsewhere(tmp_path, monkeypatch)
    loaded = run.config()
    assert loaded.data.root == project / "data"
    assert loaded.data.drop == project / "suspects.csv"
    assert loaded.data.unlabelled is None
    assert loaded.teacher.spec == f"file:{project / 'teacher.npz'}"
    assert loaded.teacher.prompts == "photo"
    assert loaded.student.spec == f"timm:test_resnet@{project / 'student.pth'}"


def test_other_images_at_the_same_relative_path_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "project", monkeypatch)
    (elsewhere(tmp_path, monkeypatch) / "data").mkdir()
    assert run.config().data.root == tmp_path / "project" / "data"


def test_a_moved_or_copied_project_uses_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "project", monkeypatch)
    copy = Path(shutil.copytree(tmp_path / "project", tmp_path / "copy"))
    monkeypatch.chdir(copy)
    assert settings_of(RunFolder(copy / "run")) == config()
    elsewhere(tmp_path, monkeypatch)
    assert RunFolder(copy / "run").config().data.root == tmp_path / "project" / "data"  # the best guess
    shutil.rmtree(tmp_path / "project")
    assert settings_of(RunFolder(copy / "run")) == config()


def test_a_resumed_run_keeps_the_folder_of_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "project", monkeypatch)
    elsewhere(tmp_path, monkeypatch)
    before = run.config_file.read_text()
    resume_run(run, run.config(), PATHS)
    assert run.config_file.read_text() == before
    assert run.config().data.root == tmp_path / "project" / "data"
    moved = RunFolder(Path(shutil.move(run.path, tmp_path / "run")))
    resume_run(moved, moved.config(), PATHS)
    start = started_in(moved.path)
    assert start is not None
    assert (start.folder, start.run) == (tmp_path / "project", tmp_path / "run")
    assert moved.config().data.root == tmp_path / "project" / "data"


@pytest.mark.parametrize("change", ["signature", "missing"])
def test_paths_of_an_untrusted_run_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    run = made(tmp_path / "project", monkeypatch)
    file = run.path / "places.json"
    if change == "missing":
        file.unlink()
    else:
        file.write_text(file.read_text().replace(str(tmp_path / "project"), str(tmp_path)))
    elsewhere(tmp_path, monkeypatch)
    assert settings_of(run) == config()
