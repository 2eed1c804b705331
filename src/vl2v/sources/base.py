"""What a source of images is: something that opens as a table, whose cells may hold images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vl2v.data.tables.base import Table
from vl2v.errors import DataError
from vl2v_runtime.names import shown

TEXT_BYTES = 2**20  # of a text or a JSON object that describes an image


@dataclass(frozen=True)
class Embedded:
    """A cell of a row that holds an image file's bytes in place of its path."""

    data: bytes


class Records(Table, Protocol):
    """A `vl2v.data.tables.base.Table` whose cells in the column of images may be `Embedded`; paths in it are absolute.

    Attributes:
        roles: column by role (image, label, domain, split, group), of columns that are used where the user names none.
        version: changes whenever the content does; empty if that is not known, so that it is read again each time.
    """

    @property
    def roles(self) -> Mapping[str, str]:
        """See above."""
        ...

    @property
    def version(self) -> str:
        """See above."""
        ...


@dataclass(frozen=True)
class Source:
    """A kind of dataset, by which a user may name images.

    Attributes:
        title: what people call it.
        claims: whether a text that stands for the data (a path, or a scheme of its own) is of this kind; quick, and
            without an error.
        open: opens it. Raises a `vl2v.errors.Vl2vError` if it cannot be read.
    """

    title: str
    claims: Callable[[str], bool]
    open: Callable[[str], Records]


def version_of(files: Iterable[Path]) -> str:
    """What changes when one of the files is changed.

    Raises:
        DataError: if one is missing.
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
    """The error for a file that is not what it should be."""
    said = (error.strerror if isinstance(error, OSError) else None) or str(error)
    found = " ".join(said.split())[:200] or type(error).__name__
    return DataError(f"{shown(name)} cannot be read.", expected=expected, found=found, next_step=step)


def first_file(candidates: Iterable[Path]) -> Path:
    """The first of several paths that is a file; the first of all if none is."""
    found = list(candidates)
    return next((path for path in found if path.is_file()), found[0])
