"""Default paths of cache and store, and the option that sets a path."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import platformdirs

from vl2v.errors import ConfigError, RunError
from vl2v_runtime.names import printable, quoted, shown


def default_cache() -> Path:
    """The folder of decoded images and what is known of files.

    Raises:
        ConfigError: if the system names no folder for it.
    """
    return _rooted(platformdirs.user_cache_dir, "cache", "XDG_CACHE_HOME", "--cache FOLDER")


def default_store() -> Path:
    """The file of bought vectors.

    Raises:
        ConfigError: if the system names no folder for it.
    """
    return _rooted(platformdirs.user_data_dir, "store", "XDG_DATA_HOME", "--store FILE") / "vectors.sqlite"


def _rooted(usual: Callable[[str], str], what: str, variable: str, flag: str) -> Path:
    try:
        folder = usual("vl2v")
    except RuntimeError:  # said so by newer versions of platformdirs
        folder = ""
    if not Path(folder).is_absolute():  # "~": neither HOME nor the list of users says where that is
        raise ConfigError(
            f"There is no folder for the {what}.",
            expected=f"HOME or {variable} set to a writable folder",
            found="neither, and this user has no home directory",
            next_step=f"set HOME, or use {flag}",
        )
    return Path(folder)


@dataclass(frozen=True)
class StoragePaths:
    """Paths of the cache and the store.

    Attributes:
        cache: decoded pixels and the index of files; may be deleted at any time.
        store: SQLite file of purchased embeddings; worth money.
    """

    cache: Path = field(default_factory=default_cache)
    store: Path = field(default_factory=default_store)


@dataclass(frozen=True)
class Location:
    """A place that an option names.

    Attributes:
        path: the file or folder.
        option: the option or argument.
        purpose: what lies there.
        advice: what to do where it cannot be used.
    """

    path: Path
    option: str
    purpose: str
    advice: str


COPY = "copy the folder to a writable disk (cp -r), and use the copy"
CACHE, STORE = "--cache", "--store"
KINDS = {  # keyword of a command or a function: option, purpose, advice
    "cache": (CACHE, "the cache", "choose another folder: --cache FOLDER (it may be deleted at any time)"),
    "store": (STORE, "the store of purchased embeddings", "copy it to a writable disk, and use the copy: --store FILE"),
    "out": ("--out", "the output folder", "choose another folder: --out FOLDER"),
    "to": ("--output", "the output file", "choose another file: --output FILE"),
    "config": ("--config", "the settings", "correct --config"),
    "unlabelled": ("--unlabelled", "the unlabelled images", "correct --unlabelled"),
    "root": ("--root", "the benchmarks' folder", "correct --root"),
    "variants": ("--variants", "the variants", "correct --variants"),
    "tls_cert": ("--tls-cert", "the certificate", "correct --tls-cert: a chain in PEM"),
    "tls_key": ("--tls-key", "the certificate's key", "correct --tls-key: a private key in PEM"),
    "data": ("DATA", "the images", "let this user read them (chmod -R u+rX DATA), or copy them"),
    "images": ("IMAGES", "the images", "let this user read them (chmod -R u+rX), or copy them"),
    "run": ("RUN", "the run", COPY),
    "folder": ("RUN", "the run", COPY),
    "student": ("RUN", "the student", COPY),
}
ELSEWHERE = {  # where a command writes below its run's folder by default
    "export": ("--out", "choose another folder: vl2v export {run} --out FOLDER"),
    "serve": (
        "RUN",
        "export it elsewhere and serve that: vl2v export {run} --out FOLDER; vl2v serve FOLDER/model.onnx",
    ),
    "push": ("--out", "choose another folder: --out FOLDER"),
}


def locations(values: Mapping[str, object], command: str = "") -> tuple[Location, ...]:
    """The places that the arguments of a command or a function name.

    Args:
        values: its arguments by keyword.
        command: its name.
    """
    found = []
    places = values.get("places")
    for key, (option, purpose, advice) in KINDS.items():
        given = values.get(key)
        if not isinstance(given, str | os.PathLike | list | tuple) or not given:  # such as a frame in place of a path
            given = getattr(places, key, None) or _default(key)
        paths = given if isinstance(given, list | tuple) else [given]
        found += [Location(Path(p), option, purpose, advice) for p in paths if isinstance(p, str | os.PathLike) and p]
    if command in ELSEWHERE and not values.get("out"):
        option, advice = ELSEWHERE[command]
        runs = [place for place in found if place.option == "RUN"]
        found = [place for place in found if place not in runs]
        found += [replace(place, option=option, advice=advice.format(run=quoted(place.path))) for place in runs]
    if values.get("resume"):
        runs = [place for place in found if place.option == "--out"]
        found = [place for place in found if place not in runs]
        found += [replace(place, advice=f"{COPY}: --out COPY --resume") for place in runs]
    return tuple(found)


def check_names(values: Mapping[str, object]) -> None:
    """Refuse folders that vl2v reads models from or writes to, if their path is not UTF-8: the files' formats need it.

    Args:
        values: the arguments of a command or a function by keyword.

    Raises:
        RunError: with the first of them.
    """
    for key in ("out", "to", "run", "folder", "student"):
        path = values.get(key)
        if isinstance(path, str | os.PathLike) and printable(found := os.fspath(path)) != found:
            option, purpose, _ = KINDS[key]
            raise RunError(
                f"The path of {purpose} is not UTF-8.",
                expected=f"a path in UTF-8 for {option}",
                found=shown(found),
                next_step="rename the folder (convmv renames many), or name another one",
            )


def _default(key: str) -> Path | None:
    try:
        return {"cache": default_cache, "store": default_store}.get(key, lambda: None)()
    except ConfigError:
        return None


def place_of(path: Path | None, places: Sequence[Location]) -> Location | None:
    """The innermost place that holds a path, or the first that lies below it and could not be made.

    Files that SQLite and locks leave beside a store belong to it.
    """
    if path is None:
        return None
    path = path.absolute()
    holding = [place for place in places if _holds(place, path)]
    if holding:
        return max(holding, key=lambda place: len(place.path.absolute().parts))
    return next((place for place in places if path in place.path.absolute().parents), None)


def _holds(place: Location, path: Path) -> bool:
    own = place.path.absolute()
    beside = place.option == STORE and path.parent == own.parent and path.name.startswith(own.stem)
    return path == own or own in path.parents or beside
