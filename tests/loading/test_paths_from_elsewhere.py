"""Commands that are called from another folder open the files of a run with relative paths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from made_folder import PREPROCESS, Small, student_of
from typer.testing import CliRunner

from vl2v.cli import app
from vl2v.commands import export
from vl2v.commands.new_classes import run_config
from vl2v.config import DataConfig
from vl2v.errors import ConfigError, TeacherError, Vl2vError
from vl2v.locations import StoragePaths
from vl2v.planning.models import open_student
from vl2v.progress import Silent
from vl2v.runs.folder import RunFolder
from vl2v.runs.signatures import MARK, sign_teacher
from vl2v.settings import make_config
from vl2v.student.backbones import from_module
from vl2v.student.model import Student

SETTINGS: dict[str, Any] = {
    "data": {"root": "data"},
    "teacher": {"spec": "file:teacher.npz", "prompts": "prompts.txt"},
    "student": {"spec": "open_clip:ViT-B-32/student.pt"},
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run that was started in `project`, from another folder."""
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    for name in ("teacher.npz", "student.pt", "prompts.txt"):
        (project / name).touch()
    monkeypatch.chdir(project)
    RunFolder(Path("run")).create(make_config(None, SETTINGS), StoragePaths(Path("cache"), Path("vectors.sqlite")))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return RunFolder(project / "run")


def student(**changes: Any) -> Student:
    config = make_config(None, SETTINGS)
    teacher = {"identity": "file:teacher.npz", "revision": "1", "dimension": 4}
    made = {"config": config.model_dump(mode="json"), "teacher": teacher, MARK: sign_teacher(config)}
    return student_of(backbone=from_module(Small(), PREPROCESS), **made | changes)


def test_weights_of_open_clip_and_unmoved_files_are_found(run: RunFolder) -> None:
    project = run.path.parent
    assert run.config().student.spec == f"open_clip:ViT-B-32/{project / 'student.pt'}"
    (project / "data").rename(project / "moved")
    assert run.config().data.root == Path("data")
    assert run.config().teacher.spec == f"file:{project / 'teacher.npz'}"


def test_a_tag_with_the_name_of_a_folder_is_a_tag(run: RunFolder) -> None:
    (run.path.parent / "openai").mkdir()
    run.write_config(make_config(None, SETTINGS | {"teacher": {"spec": "open_clip:ViT-B-32/openai"}}))
    assert run.config().teacher.spec == "open_clip:ViT-B-32/openai"


def test_the_teacher_of_new_classes_and_negative_texts_is_found(run: RunFolder) -> None:
    project = run.path.parent
    teacher = run_config(student(), None, run.path).teacher
    assert (teacher.spec, teacher.prompts) == (f"file:{project / 'teacher.npz'}", str(project / "prompts.txt"))
    with pytest.raises(TeacherError, match="not made here"):
        run_config(student(**{MARK: None}), None, run.path)


def test_the_images_of_an_export_are_found(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[DataConfig] = []
    monkeypatch.setattr(export, "run_sample", lambda student, data, *_: seen.append(data))
    export._sample(run.path, student(), None, False, StoragePaths(), Silent())
    assert seen[0].root == run.path.parent / "data"


def test_the_teacher_of_the_list_of_suspects_is_found(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def find(config: Any, *_: Any) -> Any:
        seen.append(config)
        raise ConfigError("enough")

    monkeypatch.setattr("vl2v.commands.suspects.find_suspects", find)
    words = ["data", "suspects", str(run.path.parent / "data"), "--run", str(run.path), "--set", "seed=3"]
    assert CliRunner().invoke(app, words).exit_code == ConfigError("").exit_code
    assert (seen[0].teacher.spec, seen[0].seed) == (f"file:{run.path.parent / 'teacher.npz'}", 3)
    done = CliRunner().invoke(app, [*words, "--set", "recipe=paper"])
    assert "The recipe paper would have no effect" in " ".join(done.stderr.split())


def refusal(settings: Mapping[str, Any]) -> str:
    with pytest.raises(Vl2vError) as caught:
        open_student(make_config(None, {**SETTINGS, **settings}))
    return str(caught.value)


def test_a_repaired_run_reports_that_the_earlier_one_is_missing(run: RunFolder) -> None:
    text = refusal({"repair": {"run": "/gone", "images": "repair-trained.csv"}})
    assert "expected: the earlier run in /gone" in text
    assert "repair.run" in text


def test_the_folder_of_the_student_leads_to_that_of_the_run(run: RunFolder) -> None:
    with pytest.raises(Vl2vError, match=f"pass the folder of the run: {run.path}"):
        RunFolder(run.path / "student").config()
