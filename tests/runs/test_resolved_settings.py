"""A resumed run keeps the settings that it resolved at its start, also if they are passed again as in a benchmark."""

from __future__ import annotations

from pathlib import Path

from vl2v.config import RunConfig
from vl2v.locations import StoragePaths
from vl2v.runs.folder import RunFolder
from vl2v.runs.start_checks import resume_run


def config(precision: str, balance: object) -> RunConfig:
    data = {"root": "photos", "balance": balance}
    settings = {"data": data, "teacher": {"spec": "offline:"}, "student": {"spec": "offline:"}, "precision": precision}
    return RunConfig.model_validate(settings)


def settings_of(folder: RunFolder) -> RunConfig:
    return folder.config().model_copy(update={"origin": ""})


def test_settled_settings_are_not_settled_again(tmp_path: Path) -> None:
    folder, paths = RunFolder(tmp_path / "run"), StoragePaths(tmp_path / "cache", tmp_path / "store")
    folder.create(config("no", 0.5), paths)
    before = folder.config_file.stat().st_mtime_ns
    resume_run(folder, config("auto", "auto"), paths)
    assert settings_of(folder) == config("no", 0.5)
    assert folder.config_file.stat().st_mtime_ns == before
    resume_run(folder, config("bf16", 0.0), paths)
    assert settings_of(folder) == config("bf16", 0.0)
