"""One process at a time works in the folder of a run; others name it; a dead process does not block the folder."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vl2v.cli import app
from vl2v.errors import RunError
from vl2v.hints import resume_command
from vl2v.json_files import write_json
from vl2v.runs.ownership import LOCK, OWNER, TRAINING, Owner, alone_in, owned


@contextmanager
def other_process(work: Callable[[int], None]) -> Iterator[int]:
    """A child process that does `work`, with a pipe to write to once it is ready; killed at the end."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            work(write)
        finally:
            os._exit(0)
    assert os.read(read, 1) == b"x"
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def working(folder: Path, command: str, seconds: float = 60) -> Callable[[int], None]:
    def work(ready: int) -> None:
        with owned(folder, command):
            os.write(ready, b"x")
            time.sleep(seconds)

    return work


def with_a_worker(folder: Path, seconds: float) -> Callable[[int], None]:
    """An owner with a worker that shares its lock, as forked workers do with some versions of filelock."""

    def work(ready: int) -> None:
        write_json(folder / OWNER, asdict(Owner.me(TRAINING)))
        if not os.fork():
            with (folder / LOCK).open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                os.write(ready, b"x")
                time.sleep(seconds)
            os._exit(0)
        time.sleep(60)

    return work


def test_a_second_process_names_the_owner_of_the_run(tmp_path: Path) -> None:
    host = socket.gethostname()
    with other_process(working(tmp_path, TRAINING)) as child:
        began = json.loads((tmp_path / OWNER).read_text())["since"]
        with pytest.raises(RunError, match="in use") as caught, owned(tmp_path, "vl2v export"):
            pass
    assert caught.value.found == f"vl2v distill, process {child} on {host}, since {began}"
    assert f"kill {child}" in caught.value.next_step
    assert caught.value.exit_code == 8


def test_a_killed_owner_does_not_block_the_run(tmp_path: Path) -> None:
    with other_process(working(tmp_path, TRAINING)):
        pass
    assert (tmp_path / OWNER).exists(), "it could not tidy up"
    with owned(tmp_path, TRAINING):
        assert json.loads((tmp_path / OWNER).read_text())["pid"] == os.getpid()
    assert not (tmp_path / OWNER).exists()


def test_workers_that_outlive_a_killed_owner_are_waited_for(tmp_path: Path) -> None:
    with (
        other_process(with_a_worker(tmp_path, 1.0)),
        pytest.raises(RunError, match="in use"),
        owned(tmp_path, TRAINING, patience=10),
    ):
        pass
    with owned(tmp_path, TRAINING, patience=10):
        pass


def test_a_command_waits_for_another_that_takes_seconds(tmp_path: Path) -> None:
    with other_process(working(tmp_path, "vl2v classes", seconds=0.3)), owned(tmp_path, "vl2v export", patience=10):
        pass
    with (
        other_process(working(tmp_path, "vl2v classes")),
        pytest.raises(RunError, match="vl2v classes, process"),
        owned(tmp_path, TRAINING, patience=0.2),
    ):
        pass


def test_a_folder_that_is_not_a_run_is_not_locked(tmp_path: Path) -> None:
    with alone_in(tmp_path, "vl2v export"), alone_in(None, "vl2v export"):
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ["distill", "--resume", "--out", "RUN"],
        ["classes", "add", "RUN", "zebra"],
        ["classes", "remove", "RUN", "zebra"],
        ["export", "RUN"],
        ["report", "RUN"],
        ["trust", "RUN"],
    ],
)
def test_every_command_that_writes_respects_the_owner(tmp_path: Path, command: list[str]) -> None:
    settings = (
        f"data: {{root: '{tmp_path}'}}\nteacher: {{spec: 'offline:'}}\nstudent: {{spec: 'offline:'}}\nmade_with: {{}}\n"
    )
    (tmp_path / "config.yaml").write_text(settings)
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "student.json").write_text("{}")
    with other_process(working(tmp_path, TRAINING)) as child:
        done = CliRunner().invoke(app, [str(tmp_path) if part == "RUN" else part for part in command])
    assert (done.exit_code, f"process {child}" in done.stderr) == (8, True), done.stderr


def test_hints_can_be_pasted_into_a_shell() -> None:
    run = Path("runs/my 'first' $run")
    assert shlex.split(resume_command(run)) == ["vl2v", "distill", "--out", str(run), "--resume"]
