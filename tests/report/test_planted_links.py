"""Untrusted run folders with planted links: no command writes through a link."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from made_run import make_run

from command_line import run_cli
from vl2v.api_report import make_report
from vl2v.commands.classes import remove_classes
from vl2v.commands.export import export as export_files
from vl2v.errors import AccessError, BudgetError, Vl2vError
from vl2v.json_files import write_json
from vl2v.locking import file_lock, try_file_lock
from vl2v.runs.folder import RunFolder
from vl2v.runs.ownership import owned
from vl2v.serve.gallery import Gallery
from vl2v.teacher.purchase.spending import Spending
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.tracking.base import Memory
from vl2v.tracking.mlflow import MlflowTracker
from vl2v.tracking.run_tracking import Tracking
from vl2v.writing import atomic_write, check_alone, check_folder, in_place


@pytest.fixture(autouse=True)
def without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make W&B write its files without a key."""
    monkeypatch.setenv("WANDB_MODE", "offline")


SECRET = b"a victim's file, which is longer than what vl2v writes\n" * 20_000


READ = {"tracking.json": b"{}", "export.json": b'{"format": 1, "files": {}}'}  # before they are written


def report(run: Path) -> None:
    make_report(run, run.parent / "none.sqlite")


def remove(run: Path) -> None:
    remove_classes(run, ["owl"])


def train(run: Path) -> None:
    """Write the files of a continued training."""
    folder = RunFolder(run)
    with owned(run, "vl2v distill"):
        folder.write_config(folder.config())
        length = folder.add_metrics({"stage": "distill", "step": 20})
        folder.cut_metrics(length)
        folder.save_state({"x": torch.ones(2)}, {"stage": "distill", "step": 1})
        (run / "work").mkdir(exist_ok=True)
        with atomic_write(run / "work" / "vectors.npy") as fresh:
            np.save(fresh.open("wb"), np.ones(3))


def spend(run: Path) -> None:
    store = EmbeddingStore(run.parent / "store.sqlite")
    try:
        spending = Spending(run, store, lambda name: True)
        with spending.exclusive():
            spending._append("1", Decimal(1))
    finally:
        store.close()


def gallery(run: Path) -> None:
    with owned(run, "vl2v serve"):
        (run / "export").mkdir(exist_ok=True)
        pictures = [b"x"] * 2
        Gallery("[]", np.ones((2, 3)), ["a", "b"], ["d"] * 2, ["p", "q"], pictures).save(run / "export" / "gallery.npz")


def track(name: str, run: Path) -> None:
    """Track a continued run; a refused tracker is disabled and training continues."""
    folder = RunFolder(run)
    with owned(run, "vl2v distill"):
        notes: list[str] = []
        folder.add_metrics({"stage": "align", "step": 1, "losses": [0.5], "domains": {}})
        tracking = Tracking([name], folder, notes.append)
        tracking.send_new_lines()
        tracking.finish({"accuracy": 0.5})
        assert not notes or "could change another file" in notes[0]


def tensorboard(run: Path) -> None:
    track("tensorboard", run)


def mlflow(run: Path) -> None:
    track("mlflow", run)


def wandb(run: Path) -> None:
    track("wandb", run)


def export(run: Path) -> None:
    export_files(run / "student")


SLOW = pytest.mark.slow
ACTIONS = (
    remove,
    train,
    spend,
    gallery,
    *(pytest.param(action, marks=SLOW) for action in (report, tensorboard, mlflow, wandb)),
)


def contents(folder: Path) -> dict[Path, tuple[int, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def written(action: Callable[[Path], None], run: Path) -> list[Path]:
    """Return the files that an action creates or changes, and its locks."""
    before = contents(run)
    action(run)
    after = contents(run)
    changed = [path for path in after if after[path] != before.get(path)]
    passing = ("run.lock", "owner.json", "spending.lock", "student.lock", "mlflow.db-journal", "mlflow.db-wal")
    return sorted({*changed, *map(Path, passing)})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("untrusted")).folder


def plant(run: Path, names: list[Path], kind: str, victims: Path) -> None:
    for number, name in enumerate(names):
        path, victim = run / name, victims / f"{number}{name.suffix}"
        if path.exists():
            shutil.copy(path, victim)  # so that it can be read
            path.unlink()
        else:
            victim.write_bytes(READ.get(path.name, SECRET))
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "symlink":
            path.symlink_to(victim)
        elif kind == "dangling":
            path.symlink_to(victims / f"new-{number}")
        else:
            os.link(victim, path)
        (path.parent / f"{path.name}.new").symlink_to(victim)  # where `atomic_write` writes first


@pytest.mark.parametrize("kind", ["symlink", "hard link", "dangling"])
@pytest.mark.parametrize("action", [*ACTIONS, pytest.param(export, marks=SLOW)])
def test_nothing_is_written_through_a_planted_link(
    made: Path, tmp_path: Path, action: Callable[[Path], None], kind: str
) -> None:
    run, victims = tmp_path / "run", tmp_path / "victims"
    shutil.copytree(made, tmp_path / "first")
    names = written(action, tmp_path / "first")
    shutil.copytree(made, run)
    victims.mkdir()
    plant(run, names, kind, victims)
    if kind == "dangling":  # files that are read are not replaced
        for name in names:
            if (made / name).exists():
                (run / name).unlink()
                shutil.copy(made / name, run / name)
    before = {path.name: path.read_bytes() for path in victims.iterdir()}
    refused = 0
    while True:
        try:
            action(run)
            break
        except (AccessError, BudgetError) as error:  # of a file that is changed in place; without the link it continues
            path = Path(error.problem.removeprefix("Writing to ").partition(" could change ")[0].partition(" is ")[0])
            assert path.is_relative_to(run)
            path.unlink()
            refused += 1
    assert {path.name: path.read_bytes() for path in victims.iterdir()} == before
    assert refused <= (20 if action is wandb else 4)  # W&B creates many files in a separate folder


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_is_written_through_a_linked_folder(made: Path, tmp_path: Path, action: Callable[[Path], None]) -> None:
    shutil.copytree(made, tmp_path / "first")
    folders = {name.parts[0] for name in written(action, tmp_path / "first") if len(name.parts) > 1}
    for name in folders | ({"report"} if action is report else set()):
        run, victims = tmp_path / name / "run", tmp_path / name / "victims"
        shutil.copytree(made, run)
        if (run / name).exists():
            shutil.move(run / name, victims)
        else:
            victims.mkdir()
        (run / name).symlink_to(victims)
        before = contents(victims)
        with pytest.raises(AccessError, match="link to another folder"):
            action(run)
        assert contents(victims) == before


def test_links_within_the_folder_and_to_it_are_followed(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "run")
    (tmp_path / "run" / "pages").mkdir()
    (tmp_path / "run" / "report").symlink_to("pages")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    make_report(tmp_path / "link", tmp_path / "none.sqlite")
    assert list((tmp_path / "run" / "pages").glob("*.csv"))


def test_locks_are_not_acquired_through_a_link(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "run.lock"
    victim.write_bytes(SECRET)
    link.symlink_to(victim)
    for lock in (file_lock, try_file_lock):
        with pytest.raises(AccessError), lock(link):
            pass
    assert victim.read_bytes() == SECRET
    link.unlink()
    with file_lock(link), try_file_lock(link) as second_lock:
        assert not second_lock


def test_a_file_that_is_not_a_link_is_created_and_changed(tmp_path: Path) -> None:
    file = tmp_path / "x"
    for text in (b"one", b"two"):
        with in_place(file) as handle:
            handle.seek(0, os.SEEK_END)
            handle.write(text)
    assert file.read_bytes() == b"onetwo"
    check_alone(file)
    check_alone(tmp_path / "none")
    os.link(file, tmp_path / "y")
    for wrong in (file, tmp_path):
        with pytest.raises(AccessError, match="could change another file"):
            check_alone(wrong)


def test_nothing_is_written_through_a_link_in_a_benchmark(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "victims").mkdir()
    (tmp_path / "bench" / "jobs").symlink_to(tmp_path / "victims")
    with pytest.raises(AccessError, match="link to another folder"):
        check_folder(tmp_path / "bench")
    (tmp_path / "bench" / "jobs").unlink()
    (tmp_path / "bench" / "jobs").mkdir()
    (tmp_path / "bench" / "jobs" / "adip-1").symlink_to(tmp_path / "victims")
    with pytest.raises(Vl2vError, match="link to another folder"):
        check_folder(tmp_path / "bench")


@pytest.mark.parametrize("name", ["wandb", "mlruns", "tensorboard"])
@pytest.mark.parametrize("deep", ["latest", "run-1/logs/debug.log"])
def test_in_a_folder_of_a_tracker_no_link_leads_outside(tmp_path: Path, name: str, deep: str) -> None:
    run = tmp_path / "run"
    link = run / name / deep
    link.parent.mkdir(parents=True)
    link.symlink_to(run / name / "nothing-yet")
    check_folder(run)
    link.unlink()
    link.symlink_to(tmp_path / "victim")
    with pytest.raises(AccessError, match="link to another folder"):
        check_folder(run)


@pytest.mark.parametrize(
    "wrong", [{"run": "../../x"}, {"run": 3}, {"run": "x" * 65}, {"last": "0"}, {"last": -2}, {"finished": 1}]
)
def test_files_that_no_tracker_wrote_are_refused(made: Path, wrong: dict[str, object]) -> None:
    folder = RunFolder(made)
    write_json(folder.path / "tracking.json", {"tensorboard": wrong})
    with pytest.raises(Vl2vError) as caught:
        Tracking(["tensorboard"], folder, lambda text: None)
    (folder.path / "tracking.json").unlink()
    assert "delete it" in caught.value.next_step


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_links_as_files_of_the_mlflow_database_are_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"mlflow.db{suffix}").symlink_to(tmp_path / "victim")
    with pytest.raises(AccessError, match="could change another file"):
        MlflowTracker(tmp_path, Memory()).start({})


@pytest.mark.parametrize("content", ["", "student/student.json"])
def test_a_dry_run_of_a_push_does_not_follow_a_planted_link(tmp_path: Path, content: str) -> None:
    """The link leads to an empty folder or to one that resembles an earlier dry run."""
    run, victim = make_run(tmp_path).folder, tmp_path / "victim"
    victim.mkdir()
    if content:
        (victim / content).parent.mkdir()
        (victim / content).touch()
    (run / "hub").symlink_to(victim)
    before = sorted(victim.rglob("*"))
    done = run_cli("push", run, "me/student", "--dry-run")
    assert done.returncode == 13, done.stderr
    assert "is a link to another folder" in done.stderr
    assert sorted(victim.rglob("*")) == before
