"""Protocol of the readers of tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Protocol

from vl2v.errors import DataError
from vl2v_runtime.names import shown

DELIMITED, LINES, PARQUET = (".csv", ".tsv", ".tab"), (".jsonl", ".ndjson"), (".parquet", ".pq")
READERS = {DELIMITED: "delimited:Delimited", LINES: "jsonl:JsonLines", PARQUET: "parquet:ParquetTable"}
SUFFIXES = tuple(chain(*READERS))
UTF16, UTF32 = (b"\xff\xfe", b"\xfe\xff"), b"\xff\xfe\0\0"  # byte order marks


@dataclass(frozen=True)
class Broken:
    """Why a row cannot be used, what the user can do, whether --skip-bad skips it, and the row's name in its source."""

    problem: str
    remedy: str
    file: bool = False
    name: str = field(default="", compare=False)  # rows with the same problem are one fault


Row = tuple[int, tuple[object, ...] | Broken]


def with_repeated_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object of JSON in which a repeated key has a `Broken`, as a hook for `json.loads`.

    Readers of JSON disagree on which value counts, and a row whose key is not used is fine.
    """
    content = dict(pairs)
    if len(content) != len(pairs):
        repeated = (key for key, number in Counter(key for key, _ in pairs).items() if number > 1)
        content |= {key: Broken(f"the key {shown(key[:40])} twice", "keep one of its values") for key in repeated}
    return content


class Table(Protocol):
    """A table that lists images.

    Attributes:
        columns: names of the columns, in order.
        unit: unit of the row numbers, ``row`` or ``line``.
    """

    columns: tuple[str, ...]
    unit: str

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Iterate over the rows that are not empty: the number, from 1, and the values of `columns`, None if missing.

        Raises:
            DataError: if the rest of the table cannot be read.
        """
        ...


def encoding_of(path: Path) -> str:
    """Return the encoding of a text: UTF-16 with a byte order mark, else UTF-8 with or without one.

    Raises:
        DataError: if the file is not text, or has another encoding with NUL bytes.
    """
    with path.open("rb") as file:
        start = file.read(2**12)
    if start[:2] in UTF16 and start[:4] != UTF32:
        return "utf-16"
    if b"\0" in start:
        raise DataError(
            f"{shown(path)} is not text.",
            expected="a table in UTF-8",
            found="NUL bytes, as in UTF-16 without a byte order mark, in UTF-32, or in a workbook",
            next_step="save it in UTF-8",
        )
    return "utf-8-sig"


def is_table(path: Path) -> bool:
    """Return whether a path has the suffix of a table and is not a folder."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def open_table(path: Path) -> Table:
    """Return the reader of a table.

    Raises:
        DataError: if the file is missing, or does not have the format of its suffix.
        MissingExtraError: if it is Parquet, and pyarrow is not installed.
    """
    if not path.is_file():
        found = "not a regular file" if path.exists() else "no such file"
        raise DataError(f"{shown(path)} is not a file.", expected="a table", found=found, next_step="check the path")
    readers = (reader for suffixes, reader in READERS.items() if path.suffix.lower() in suffixes)
    module, _, name = next(readers, READERS[DELIMITED]).partition(":")
    table: Table = getattr(import_module(f"vl2v.data.tables.{module}"), name)(path)
    return table


def empty(path: Path) -> DataError:
    """Return the error for a table without rows."""
    return DataError(
        f"{shown(path)} lists no image.",
        expected="a row for every image",
        found="no row",
        next_step="add the rows of the images",
    )
