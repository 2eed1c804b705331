"""A process that is killed while it starts a run leaves a folder in which the same command starts it again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vl2v.config import RunConfig
from vl2v.errors import RunError
from vl2v.locations import StoragePaths
from vl2v.runs.folder import RunFolder
from vl2v.runs.ownership import TRAINING, owned

SETTINGS = {"data": {"root": "photos"}, "teacher": {"spec": "offline:"}, "student": {"spec": "pytorch"}}
CONFIG = RunConfig.model_validate(SETTINGS)


def start_and_die(folder: RunFolder, step: int) -> bool:
    """Start a run in a child process that exits before it replaces its `step`-th file. Return whether it did so."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    done, replace = 0, Path.replace

    def dying(self: Path, target: Path) -> Path:
        nonlocal done
        if done == step:
            os._exit(9)
        done += 1
        return replace(self, target)

    Path.replace = dying  # type: ignore[method-assign, assignment]
    try:
        with owned(folder.path, TRAINING):
            folder.create(CONFIG, StoragePaths(folder.path / "cache", folder.path / "store.sqlite"))
    finally:
        os._exit(0)  # also after an error, so that the child does not continue with the tests


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("step", range(4))
def test_a_killed_start_is_started_again(tmp_path: Path, step: int) -> None:
    folder = RunFolder(tmp_path / "run")
    died = start_and_die(folder, step)
    assert died == (step < 3), "the number of files that a start writes has changed: test every one"
    if died:
        folder.check_free()
        folder.create(CONFIG)
    assert folder.config().teacher.spec == "offline:"


def test_a_folder_with_any_other_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "places.json").touch()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunError, match="is not empty"):
        RunFolder(tmp_path).check_free()
