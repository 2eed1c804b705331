"""Start a run folder, or resume the run in one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vl2v.config import RunConfig
from vl2v.data.tables.base import is_table
from vl2v.errors import RunError, TeacherError
from vl2v.hints import resume_command
from vl2v.json_files import write_json
from vl2v.locations import StoragePaths
from vl2v.runs.folder import RunFolder
from vl2v.runs.relative_paths import base_of
from vl2v.runs.signatures import MARK, check_prompts, check_teacher, is_signed, sign_teacher
from vl2v.runs.storage import remember, teacher_signature
from vl2v.teacher.base import Teacher
from vl2v.teacher.purchase import spending
from vl2v_runtime.names import printable


def ledger_name(folder: RunFolder) -> str:
    """Return the name of a run in the ledger, the absolute path of its folder."""
    return printable(folder.path.resolve())


def ensure_new(folder: RunFolder, data: Path) -> None:
    """Check that a new run can be created in a folder, and that the folder is not inside a folder of images.

    Args:
        data: the folder or table of images.

    Raises:
        RunError: if the folder is not empty, or the next scan of `data` would read it as a domain or a class.
    """
    ensure_outside(folder.path, data)
    folder.check_free()


def ensure_outside(out: Path, data: Path | None) -> None:
    """Check that a folder of results is not inside a folder of images, if that is known.

    Raises:
        RunError: if the next scan of `data` would read `out` as a domain or a class.
    """
    if data is not None and not is_table(data) and out.resolve().is_relative_to(data.resolve()):
        found, step = f"it is in {data}", "choose another folder: --out FOLDER"
        problem = f"{out} is inside the folder of images."
        raise RunError(problem, expected="a folder outside the folder of images", found=found, next_step=step)


def ensure_teacher_allowed(folder: RunFolder, teacher_spec: str | None = None) -> None:
    """Check that the teacher and the prompts in the settings of a run may be opened.

    They may be if this user made the run, or if they contain neither a file nor an address.

    Args:
        folder: folder of the run, which may come from another person.
        teacher_spec: the teacher, if the user names it in this command; its prompts are then checked alone.

    Raises:
        TeacherError: if they may not; the message contains the option that opens the teacher anyway.
    """
    config = folder.written_config()
    recorded = teacher_signature(folder.path)
    student_signature = folder.provenance().get(MARK)  # earlier versions signed in the student alone
    signature = (
        recorded if is_signed(recorded, "teacher", config.teacher.spec, config.teacher.prompts) else student_signature
    )
    if teacher_spec is None:
        check_teacher(config, signature)
    else:
        check_prompts(config, signature, "copy its lines into config.yaml, as a list under teacher.prompts")


def resume_run(
    folder: RunFolder, config: RunConfig, paths: StoragePaths, *, teacher_spec: str | None = None, by_name: bool = True
) -> None:
    """Record the settings that may change when a run is resumed: cache and store, budget and trackers.

    Args:
        folder: folder of the run.
        config: settings of the run, with the changes.
        paths: paths of cache and store.
        teacher_spec: the teacher, if the user names it in this command.
        by_name: whether the teacher in the settings will be opened; False if the caller has an open one.

    Raises:
        RunError: if classes of the student were added or removed.
        TeacherError: see `ensure_teacher_allowed`.
    """
    if folder.provenance().get("classes_changed"):
        raise RunError(
            "The classes of this student were changed after its training, and --resume would undo that.",
            expected="a student with the classes of its training",
            found="classes that vl2v classes has added or removed",
            next_step="use vl2v report or vl2v evaluate; to undo the changes, delete the folder student, then resume",
        )
    run_config = folder.config()
    if by_name:
        specs = (folder.written_config().teacher.spec, run_config.teacher.spec)
        ensure_teacher_allowed(folder, teacher_spec if teacher_spec in specs else None)
    fixed: dict[str, Any] = {"made_with": run_config.made_with, "origin": run_config.origin}
    if config.precision == "auto":  # values that were chosen at the start of the run do not change
        fixed["precision"] = run_config.precision
    if config.data.balance == "auto":
        fixed["data"] = config.data.model_copy(update={"balance": run_config.data.balance})
    if folder.state_file.exists():
        fixed["threads"] = run_config.threads
    config = config.model_copy(update=fixed)
    if config != run_config:
        folder.write_config(config)
    signature = sign_teacher(folder.written_config()) if by_name else teacher_signature(folder.path)
    remember(folder.path, paths, base_of(folder.path, run_config.data.root), signature)


def ensure_finished(folder: RunFolder) -> None:
    """Check that a run has been evaluated.

    Raises:
        RunError: if it has not; the message contains the command that finishes it.
    """
    if not folder.evaluation_file.exists():
        problem, step = f"{folder.path} is not finished.", f"finish it: {resume_command(folder.path)}"
        raise RunError(problem, expected="a run with evaluation.json", found="none", next_step=step)


def ensure_same_model(folder: RunFolder, teacher: Teacher, *, record: bool = True) -> None:
    """Check that a vendor still has the model with which the run started, which the run folder records.

    Args:
        record: whether to record the model in the folder.

    Raises:
        TeacherError: if the vendor has another model or revision now.
    """
    from vl2v.teacher.http.client import HttpTeacher  # imports httpx

    if not isinstance(teacher, HttpTeacher):  # files and local models can be queried again for free
        return
    card, record_of_start = teacher.describe(), folder.teacher()
    now = {"identity": card.identity, "revision": card.revision, "dimension": card.dimension}
    differences = [key for key in now if record_of_start is not None and record_of_start.get(key) != now[key]]
    if record_of_start is not None and differences:
        raise TeacherError(
            f"{card.identity} is not the model that this run started with.",
            expected=", ".join(f"{key} {record_of_start.get(key)}" for key in differences),
            found=", ".join(f"{key} {now[key]}" for key in differences),
            next_step="start a new run with another --out. Purchased embeddings stay stored. This run can continue if "
            "the vendor offers that model again",
        )
    if record:
        write_json(folder.teacher_file, now)


@contextmanager
def removed_if_refused(out: Path, begun: bool) -> Iterator[Callable[[], None]]:
    """Delete the folder of a new run if the block raises before anything was bought.

    A folder with a record of purchases, such as those of `vl2v repair` before the training, is never deleted.

    Args:
        begun: whether the run was started before. Its folder is then never deleted.

    Yields:
        A function to call immediately before the purchase, after which the folder is never deleted.
    """
    bought = begun or (out / spending.FILE).exists()

    def set_bought() -> None:
        nonlocal bought
        bought = True

    try:
        yield set_bought
    except Exception:
        if not bought:
            shutil.rmtree(out.resolve(), ignore_errors=True)
        raise
