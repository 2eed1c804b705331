"""Paths of the cache and the store of a run, and the folder in which it was started, as recorded in the run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vl2v.json_files import write_json
from vl2v.locations import StoragePaths, default_cache, default_store
from vl2v.runs.made_here import MARK, is_signed, sign
from vl2v_runtime import strict_json
from vl2v_runtime.names import printable

FILE = "places.json"  # in the run folder
FOLDER, PATH, FOLDER_MARK = "folder", "run", "folder_signature"


@dataclass(frozen=True)
class Started:
    """Where a run was started.

    Attributes:
        folder: the current folder at that time; relative paths of the settings are relative to it.
        run: absolute path of the run folder at that time.
    """

    folder: Path
    run: Path


def remember(run: Path, storage: StoragePaths, folder: Path | None = None) -> None:
    """Record in a run's folder which cache and store it uses, and which folder its paths are relative to.

    Args:
        folder: the folder that relative paths of the settings are relative to; None is the current one.
    """
    found = {"cache": str(storage.cache.absolute()), "store": str(storage.store.absolute())}
    here = {FOLDER: str((folder or Path.cwd()).absolute()), PATH: str(run.resolve())}
    if all(printable(path) == path for path in here.values()):
        found |= here | {FOLDER_MARK: sign("folder", *here.values()) or ""}
    write_json(run / FILE, found | {MARK: sign("places", found["cache"], found["store"])})


def started_in(run: Path) -> Started | None:
    """Return where a run was started; None if it was made elsewhere or by an earlier version."""
    try:
        found = strict_json.read(run / FILE)
        folder, path = str(found[FOLDER]), str(found[PATH])
        is_own = is_signed(found.get(FOLDER_MARK), "folder", folder, path)
        return Started(Path(folder), Path(path)) if is_own else None
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None


def storage_of(
    run: Path | None, cache: Path | None = None, store: Path | None = None, *, present: bool = True
) -> StoragePaths:
    """Return the paths of cache and store: those given, else those of the run, else the defaults.

    Args:
        run: folder of the run; None if there is no run.
        present: whether to use the run's paths only if they exist. Resuming a run passes False, because it must not
            silently replace the run's store by a new one.
    """
    known = _remembered(run, anyone=not present) if run is not None else {}
    usable = {name: path for name, path in known.items() if not present or path.exists()}
    return StoragePaths(
        cache or usable.get("cache") or default_cache(), store or usable.get("store") or default_store()
    )


def made_here(run: Path) -> bool:
    """Whether this user created the run on this machine. Only then are the files that it names trusted and read."""
    return bool(_remembered(run, anyone=False))


def _remembered(run: Path, anyone: bool) -> dict[str, Path]:
    """Return the recorded paths; empty for a run of an older version, or for a student without its run.

    Args:
        anyone: whether to trust a folder that was created elsewhere. Resuming a run follows its settings. Any other
            command opens no file that a foreign folder names.
    """
    try:
        found = strict_json.read(run / FILE)
        cache, store = str(found["cache"]), str(found["store"])
        known = {"cache": Path(cache), "store": Path(store)}
        return known if anyone or is_signed(found.get(MARK), "places", cache, store) else {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}
