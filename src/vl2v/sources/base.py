"""The protocol of data sources: datasets that are read as tables, whose cells may contain images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vl2v.data.tables.base import Table
from vl2v.data.tables.cells import existing_path
from vl2v.errors import DataError
from vl2v_runtime.names import shown

IMAGE_FOLDERS = frozenset({"images", "upload", "media"})  # next to an export of a labelling tool
TEXTS = (".xml", ".json", ".csv", ".tsv")
MOST_EXPORTS = 100  # files in a folder that are looked at
TEXT_BYTES = 2**20  # maximum size of a text or a JSON object that describes an image


@dataclass(frozen=True)
class Embedded:
    """A cell that contains the bytes of an image file instead of its path.

    Attributes:
        name: name of the image in the dataset; empty if the number of its row is enough.
    """

    data: bytes
    name: str = ""


class Records(Table, Protocol):
    """A `vl2v.data.tables.base.Table` whose image column contains absolute paths or `Embedded` images.

    Attributes:
        roles: default column of each role (image, label, domain, split, group), used unless the user names another.
        version: a text that changes with the content; empty if unknown, in which case the data are read every time.
    """

    @property
    def roles(self) -> Mapping[str, str]:
        """See above."""
        ...

    version: str


@dataclass(frozen=True)
class Source:
    """A kind of dataset, registered in `vl2v.sources.registry`.

    Attributes:
        title: name of the kind, for messages.
        claims: returns whether a path or an address is a dataset of this kind. It is fast and does not raise.
        open: opens a dataset. Raises a `vl2v.errors.Vl2vError` if it cannot be read.
    """

    title: str
    claims: Callable[[str], bool]
    open: Callable[[str], Records]


def version_of(files: Iterable[Path]) -> str:
    """Return a text that changes when one of the files changes: paths, sizes and modification times.

    Raises:
        DataError: if a file is missing.
    """
    stamps = []
    for file in files:
        try:
            status = file.stat()
        except FileNotFoundError as error:
            raise unreadable(file, "a file of the dataset", error) from error
        stamps.append(f"{os.path.abspath(file)} {status.st_size} {status.st_mtime_ns}")  # noqa: PTH100 - links stay
    return "\n".join(stamps)


def unreadable(name: str | Path, expected: str, error: Exception | str, step: str = "export it again") -> DataError:
    """Return the error for a file that cannot be read as expected."""
    message = (error.strerror if isinstance(error, OSError) else None) or str(error)
    found = " ".join(message.split())[:200] or type(error).__name__
    return DataError(f"{shown(name)} cannot be read.", expected=expected, found=found, next_step=step)


def exports_in(folder: Path, is_export: Callable[[Path], bool]) -> list[Path]:
    """Return the exports of a labelling tool in a folder, sorted; none if it has other folders than those of images.

    Args:
        is_export: returns whether a file is such an export.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        if any(entry.is_dir() and entry.name.casefold() not in IMAGE_FOLDERS for entry in entries):
            return []
        texts = [entry for entry in entries if entry.suffix.lower() in TEXTS and entry.is_file()]
        return [entry for entry in texts[:MOST_EXPORTS] if is_export(entry)]
    except OSError:
        return []


def first_file(candidates: Iterable[Path]) -> Path:
    """Return the first path that is a file, or the first path if none is."""
    first: Path | None = None
    for path in candidates:
        existing = Path(existing_path(str(path)))
        if _is_file(existing):
            return existing
        first = first or existing
    if first is None:
        raise ValueError("no candidates")
    return first


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or that no file can have
        return False
