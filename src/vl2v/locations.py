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
    """Return the default folder of the cache.

    Raises:
        ConfigError: if the system has no folder for it.
    """
    return _rooted(platformdirs.user_cache_dir, "cache", "XDG_CACHE_HOME", "--cache FOLDER")


def default_store() -> Path:
    """Return the default path of the store.

    Raises:
        ConfigError: if the system has no folder for it.
    """
    return _rooted(platformdirs.user_data_dir, "store", "XDG_DATA_HOME", "--store FILE") / "vectors.sqlite"


def _rooted(usual: Callable[[str], str], what: str, variable: str, flag: str) -> Path:
    try:
        folder = usual("vl2v")
    except RuntimeError:  # raised by newer versions of platformdirs
        folder = ""
    if not Path(folder).is_absolute():  # "~": there is no home directory
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
        cache: folder of decoded pixels and the index of files; may be deleted at any time.
        store: SQLite file of purchased embeddings, which were paid for.
    """

    cache: Path = field(default_factory=default_cache)
    store: Path = field(default_factory=default_store)


@dataclass(frozen=True)
class Location:
    """A path that is set by an option.

    Attributes:
        option: name of the option or argument.
        advice: what the user can do if it is unusable.
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
ELSEWHERE = {  # commands that write into the run folder by default: option, advice
    "export": ("--out", "choose another folder: vl2v export {run} --out FOLDER"),
    "serve": (
        "RUN",
        "export it elsewhere and serve that: vl2v export {run} --out FOLDER; vl2v serve FOLDER/model.onnx",
    ),
    "push": ("--out", "choose another folder: --out FOLDER"),
    "report": ("--out", "choose another folder: vl2v report {run} --out FOLDER"),
}


def locations_in(values: Mapping[str, object], command: str = "") -> tuple[Location, ...]:
    """Return the paths in the arguments of a command or a function.

    Args:
        values: arguments by keyword.
        command: name of the command or function.
    """
    result = []
    storage = values.get("storage")
    for key, (option, purpose, advice) in KINDS.items():
        value = values.get(key)
        if not isinstance(value, str | os.PathLike | list | tuple) or not value:  # such as a frame in place of a path
            value = getattr(storage, key, None) or _default(key)
        paths = value if isinstance(value, list | tuple) else [value]
        result += [Location(Path(p), option, purpose, advice) for p in paths if isinstance(p, str | os.PathLike) and p]
    if command in ELSEWHERE and not values.get("out"):
        option, advice = ELSEWHERE[command]
        runs = [location for location in result if location.option == "RUN"]
        result = [location for location in result if location not in runs]
        result += [replace(run, option=option, advice=advice.format(run=quoted(run.path))) for run in runs]
    if values.get("resume"):
        runs = [location for location in result if location.option == "--out"]
        result = [location for location in result if location not in runs]
        result += [replace(location, advice=f"{COPY}: --out COPY --resume") for location in runs]
    return tuple(result)


def check_names(values: Mapping[str, object]) -> None:
    """Check that the paths of models and output folders are UTF-8, as the file formats require.

    Args:
        values: arguments of a command or a function by keyword.

    Raises:
        RunError: for the first path that is not UTF-8.
    """
    for key in ("out", "to", "run", "folder", "student"):
        path = values.get(key)
        if isinstance(path, str | os.PathLike) and printable(text := os.fspath(path)) != text:
            option, purpose, _ = KINDS[key]
            raise RunError(
                f"The path of {purpose} is not UTF-8.",
                expected=f"a path in UTF-8 for {option}",
                found=shown(text),
                next_step="rename the folder (convmv renames many), or name another one",
            )


def _default(key: str) -> Path | None:
    try:
        return {"cache": default_cache, "store": default_store}.get(key, lambda: None)()
    except ConfigError:
        return None


def location_of(path: Path | None, locations: Sequence[Location]) -> Location | None:
    """Return the innermost location that contains a path, or else the first location inside it; None without one.

    Files that SQLite and locks create next to a store belong to the store.
    """
    if path is None:
        return None
    path = path.absolute()
    containing = [location for location in locations if _contains(location, path)]
    if containing:
        return max(containing, key=lambda location: len(location.path.absolute().parts))
    return next((location for location in locations if path in location.path.absolute().parents), None)


def _contains(location: Location, path: Path) -> bool:
    folder = location.path.absolute()
    sibling = location.option == STORE and path.parent == folder.parent and path.name.startswith(folder.stem)
    return path == folder or folder in path.parents or sibling
