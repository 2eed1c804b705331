"""Paths of the cache and the store of a run, and the folder in which it was started, as recorded in the run folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl2v.data.caches import INDEX
from vl2v.errors import RunError
from vl2v.json_files import write_json
from vl2v.locations import StoragePaths, default_cache, default_store
from vl2v.runs.signatures import MARK, is_signed, sign
from vl2v.writing import ensure_writable
from vl2v_runtime import strict_json
from vl2v_runtime.names import printable, quoted, shown

FILE = "places.json"  # in the run folder
FOLDER, PATH, FOLDER_MARK = "folder", "run", "folder_signature"
TEACHER_MARK = "teacher_signature"  # see `vl2v.runs.signatures.sign_teacher`


@dataclass(frozen=True)
class StartRecord:
    """Where a run was started.

    Attributes:
        folder: the current folder at that time; relative paths of the settings are relative to it.
        run: absolute path of the run folder at that time.
    """

    folder: Path
    run: Path


def remember(run: Path, storage: StoragePaths, folder: Path | None = None, teacher: object = None) -> None:
    """Record in a run's folder which cache and store it uses, and which folder its paths are relative to.

    Args:
        folder: the folder that relative paths of the settings are relative to; None is the current one.
        teacher: signature of the teacher in `config.yaml`; None does not record any.
    """
    record = {"cache": str(storage.cache.absolute()), "store": str(storage.store.absolute())}
    here = {FOLDER: str((folder or Path.cwd()).absolute()), PATH: str(run.resolve())}
    if all(printable(path) == path for path in here.values()):
        record |= here | {FOLDER_MARK: sign("folder", *here.values()) or ""}
    signatures = {MARK: sign("places", record["cache"], record["store"]), TEACHER_MARK: teacher}
    write_json(
        run / FILE, record | {mark: signature for mark, signature in signatures.items() if signature is not None}
    )


def teacher_signature(run: Path) -> object:
    """Return the signature of the teacher of a run, which is not checked; None if there is none."""
    return _record(run).get(TEACHER_MARK)


def started_in(run: Path) -> StartRecord | None:
    """Return where a run was started; None if it was made elsewhere or by an earlier version."""
    record = _record(run)
    folder, path = str(record.get(FOLDER)), str(record.get(PATH))
    is_own = is_signed(record.get(FOLDER_MARK), "folder", folder, path)
    return StartRecord(Path(folder), Path(path)) if is_own else None


def ensure_storage_writable(storage: StoragePaths) -> None:
    """Check that cache and store can be written, before time or money is spent on their content.

    Raises:
        OSError: with the name of the file.
    """
    for file in (storage.cache / INDEX, storage.store):
        ensure_writable(file)


def storage_of(
    run: Path | None,
    cache: Path | None = None,
    store: Path | None = None,
    *,
    present: bool = True,
    uses_store: bool = True,
) -> StoragePaths:
    """Return the paths of cache and store: those given, else those of the run, else the defaults.

    Args:
        run: folder of the run; None if there is no run.
        present: whether to use the run's paths only if they exist. Resuming a run passes False, because it must not
            silently replace the run's store by a new one.
        uses_store: whether the caller uses the store. If not, a damaged record counts as missing.

    Raises:
        RunError: if a run that this user did not start here is resumed, and names other paths; or if the record is
            damaged and no store is given, since another store would not have the purchases of the run.
    """
    if run is not None and uses_store and store is None:
        _check_record(run)
    run_paths, is_own = _remembered(run) if run is not None else ({}, True)
    if not is_own and not present:
        _check_stated(run, run_paths, {"cache": cache, "store": store})
    run_paths = run_paths if is_own else {}
    usable = {name: path for name, path in run_paths.items() if not present or path.exists()}
    return StoragePaths(
        cache or usable.get("cache") or default_cache(), store or usable.get("store") or default_store()
    )


def made_here(run: Path) -> bool:
    """Whether this user created the run on this machine. Only then are the files that it names trusted and read."""
    paths, is_own = _remembered(run)
    return bool(paths) and is_own


def _check_stated(run: Path | None, run_paths: dict[str, Path], stated: dict[str, Path | None]) -> None:
    """Check that the user states the paths to which a resumed run of another person or machine would write."""
    usual = {"cache": default_cache(), "store": default_store()}
    if unstated := [name for name, path in run_paths.items() if stated[name] is None and path != usual[name]]:
        raise RunError(
            f"{shown(str(run))} was not started here by this user.",
            expected=" and ".join(f"--{name}" for name in unstated) + ", since vl2v writes to the paths that it names",
            found=", ".join(shown(run_paths[name])[:300] for name in unstated),
            next_step="if they are yours, repeat the command with "
            + " ".join(f"--{name} {quoted(run_paths[name])[:300]}" for name in unstated)
            + "; with another store, embeddings are bought again",
        )


def _remembered(run: Path) -> tuple[dict[str, Path], bool]:
    """Return the recorded paths, and whether this user recorded them here.

    The paths are empty for a run of an older version, or for a student without its run.
    """
    record = _record(run)
    paths = {name: str(record[name]) for name in ("cache", "store") if name in record}
    if len(paths) < 2:
        return {}, False
    return {name: Path(path) for name, path in paths.items()}, is_signed(record.get(MARK), "places", *paths.values())


def _check_record(run: Path) -> None:
    """Check that a run records paths of cache and store, unless it has no record."""
    path, found = run / FILE, ""
    if not os.path.lexists(path):
        return
    try:
        content = strict_json.read(path)
        if not isinstance(content, dict) or not all(isinstance(content.get(key), str) for key in ("cache", "store")):
            found = "other content"
    except OSError as error:
        found = error.strerror or str(error)
    except ValueError as error:
        found = str(error)[:200]
    if found:
        raise RunError(
            f"{shown(path)} is damaged, so the store of the run is not known.",
            expected="the paths of its cache and store",
            found=found,
            next_step="name the store with its purchases: --store FILE; or, if that is the default, "
            f"{shown(default_store())}, delete {shown(path)}",
        )


def _record(run: Path) -> dict[str, Any]:
    """Return the content of `FILE`; empty if it is missing or damaged."""
    try:
        record = strict_json.read(run / FILE)
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
