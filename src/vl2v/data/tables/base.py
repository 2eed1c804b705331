"""What every reader of a table gives: its columns, and its rows one after another with their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vl2v.errors import DataError
from vl2v_runtime.names import shown

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
DELIMITED, LINES, PARQUET = (".csv", ".tsv", ".tab"), (".jsonl", ".ndjson"), (".parquet", ".pq")


@dataclass(frozen=True)
class Broken:
    """A row that cannot be read: why, what to do about it, and whether --skip-bad leaves it out."""

    problem: str
    remedy: str
    file: bool = False


Row = tuple[int, tuple[object, ...] | Broken]


class Table(Protocol):
    """A table that lists images.

    Attributes:
        columns: their names, in order.
        unit: what the number of a row counts, ``row`` or ``line``.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """See above."""
        ...

    @property
    def unit(self) -> str:
        """See above."""
        ...

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """The number of every row that is not empty, counted from 1, and its values in `columns`; None for no value.

        Raises:
            DataError: if the rest of the table cannot be read.
        """
        ...


def is_table(path: Path) -> bool:
    """Whether a path means a table, by its suffix; a folder is never one."""
    return path.suffix.lower() in (*DELIMITED, *LINES, *PARQUET) and not path.is_dir()


def open_table(path: Path) -> Table:
    """The reader of a table.

    Raises:
        DataError: if there is no such file, or it is not what its suffix says.
        MissingExtraError: if it is Parquet, and pyarrow is not installed.
    """
    if not path.is_file():
        found = "not a regular file" if path.exists() else "no such file"
        raise DataError(f"{shown(path)} is not a file.", expected="a table", found=found, next_step="check the path")
    suffix = path.suffix.lower()
    if suffix in PARQUET:
        from vl2v.data.tables.parquet import ParquetTable

        return ParquetTable(path)
    if suffix in LINES:
        from vl2v.data.tables.jsonl import JsonLines

        return JsonLines(path)
    from vl2v.data.tables.delimited import Delimited

    return Delimited(path)


def empty(path: Path) -> DataError:
    """The error for a table without a row."""
    return DataError(
        f"{shown(path)} lists no image.",
        expected="a row for every image, with its path and its class",
        found="no row",
        next_step="check the file",
    )
