"""Text tables: CSV with commas, semicolons, tabs or bars, and TSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import TextIO

from vl2v.data.tables.base import Broken, Row, empty, encoding_of
from vl2v.errors import DataError
from vl2v_runtime.formats import SUFFIXES as IMAGES
from vl2v_runtime.names import shown

DELIMITERS = (",", ";", "\t", "|")
STATED = re.compile(r"sep=(.)\r?\n?")  # a first line that Excel reads
QUOTES = 'put a value with quotes, commas or line breaks in quotes, and double each quote in it: "a ""b"""'


class Delimited:
    """A CSV or TSV file in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    The first row contains the names of the columns. Rows are numbered as in a spreadsheet, so this row has number 1.

    Args:
        path: path of the file. The separator is a tab if the suffix is .tsv or .tab, otherwise the one that splits the
            first row into the most names.

    Raises:
        DataError: if there is no row of names.
    """

    unit = "row"

    def __init__(self, path: Path) -> None:
        self._path, self._encoding = path, encoding_of(path)
        with self._open() as file:
            stated = STATED.fullmatch(file.readline())
        self._above = 1 if stated else 0  # rows above that of the names
        tabs = path.suffix.lower() != ".csv"
        candidates = (stated[1],) if stated else ("\t",) if tabs else DELIMITERS
        self._delimiter, self.columns = max(
            ((mark, self._names(mark)) for mark in candidates), key=lambda pair: len(pair[1])
        )
        if not any(self.columns):
            raise empty(path)
        self._above = next(number for number, names in self._filled(self._delimiter)) - 1
        if like := [name for name in self.columns if Path(name).suffix.lower() in IMAGES]:
            raise DataError(
                f"The first row of {shown(path)} does not name columns.",
                expected="a row of names, such as path,label,domain",
                found=f"an image, {shown(like[0])}",
                next_step="put a row of names above the others",
            )

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """See `Table.rows`."""
        indices, width = [self.columns.index(column) for column in columns], len(self.columns)
        pick = itemgetter(*indices) if len(indices) > 1 else lambda cells: (cells[indices[0]],)
        for number, cells in self._cells():
            if isinstance(cells, Broken):
                yield number, cells
            elif number > self._above + 1 and any(map(str.strip, cells)):
                if len(cells) > width and any(map(str.strip, cells[width:])):
                    problem = f"more than the {width} values that the first row names"
                    yield number, Broken(problem, QUOTES)
                elif len(cells) < width and len(cells) <= max(indices):
                    yield number, Broken(f"fewer than the {width} values that the first row names", QUOTES)
                else:
                    yield number, pick(cells)

    def _names(self, delimiter: str) -> tuple[str, ...]:
        for _, cells in self._filled(delimiter):
            return () if isinstance(cells, Broken) else tuple(name.strip() for name in cells)
        return ()

    def _filled(self, delimiter: str) -> Iterator[tuple[int, list[str] | Broken]]:
        """Iterate over the rows from that of the names on, which is the first one that is not empty."""
        for number, cells in self._cells(delimiter):
            if number > self._above and (isinstance(cells, Broken) or any(map(str.strip, cells))):
                yield number, cells

    def _cells(self, delimiter: str = "") -> Iterator[tuple[int, list[str] | Broken]]:
        with self._open() as file:
            reader = csv.reader(file, delimiter=delimiter or self._delimiter, strict=True)
            number = 0
            while True:
                following = enumerate(reader, number + 1)
                try:
                    for number, cells in following:
                        yield number, cells
                    return
                except csv.Error as error:
                    number += 1
                    yield number, Broken(f"not CSV ({error})", QUOTES)

    @contextmanager
    def _open(self) -> Iterator[TextIO]:
        errors = "strict" if self._encoding == "utf-16" else "surrogateescape"  # reported later, with the row's number
        with self._path.open(encoding=self._encoding, errors=errors, newline="") as file:
            try:
                yield file
            except UnicodeError as error:
                found, step = (
                    "bytes that are not UTF-16, although the file begins like UTF-16",
                    "save it as CSV in UTF-8",
                )
                problem = f"{shown(self._path)} cannot be read."
                raise DataError(problem, expected="text in UTF-8", found=found, next_step=step) from error
