"""Paths of a run's cache and store, as recorded in its folder."""

from __future__ import annotations

from pathlib import Path

from vl2v.locations import StoragePaths, default_cache, default_store
from vl2v.runs.made_here import MARK, is_signed, sign
from vl2v.student.files import write_json
from vl2v_runtime import strict_json

FILE = "places.json"  # in the run's folder


def remember(run: Path, places: StoragePaths) -> None:
    """Note in a run's folder which cache and store it uses."""
    found = {"cache": str(places.cache.absolute()), "store": str(places.store.absolute())}
    write_json(run / FILE, found | {MARK: sign("places", found["cache"], found["store"])})


def places_of(
    run: Path | None, cache: Path | None = None, store: Path | None = None, *, present: bool = True
) -> StoragePaths:
    """Cache and store: those that are named, else those of the run, else the user's own.

    Args:
        run: the run's folder; None for what belongs to no run.
        cache: the one that is named, if any.
        store: the one that is named, if any.
        present: take the run's only where they exist. False is for going on with a run, which must not take a new store
            in place of its own without a word.
    """
    known = _remembered(run, anyone=not present) if run is not None else {}
    mine = {name: path for name, path in known.items() if not present or path.exists()}
    return StoragePaths(cache or mine.get("cache") or default_cache(), store or mine.get("store") or default_store())


def made_here(run: Path) -> bool:
    """Whether this user made a run on this machine, so that files that it names may be read."""
    return bool(_remembered(run, anyone=False))


def _remembered(run: Path, anyone: bool) -> dict[str, Path]:
    """What a run's folder says; nothing for one of an older version, or for a student's folder alone.

    Args:
        run: the folder.
        anyone: whether to believe a folder that was not made here. Going on with a run does what its settings say; any
            other command opens no file that a stranger's folder names.
    """
    try:
        found = strict_json.read(run / FILE)
        cache, store = str(found["cache"]), str(found["store"])
        known = {"cache": Path(cache), "store": Path(store)}
        return known if anyone or is_signed(found.get(MARK), "places", cache, store) else {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}
