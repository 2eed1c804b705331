"""Images that a table lists: a row for every image, with its path, its class and its domain."""

from __future__ import annotations

import os
import posixpath
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from errno import ENOENT
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v.data.images import spaced
from vl2v.data.listing import Cells, FaultyDataError, Listing
from vl2v.data.scan import Fault
from vl2v.data.tables.base import Broken, Table, empty, open_table
from vl2v.data.tables.columns import SPLIT, Columns, find_columns
from vl2v_runtime.names import shown

LISTED = 20  # rows named in a fault; the rest are counted
MANY = 20  # different values of a column in more than half of the rows, from which they are taken for something else
NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass
class _Rows:
    """Rows with the same fault: the first of them and how many there are."""

    first: list[str] = field(default_factory=list)
    count: int = 0


class TableListing(Listing):
    """Images that a table lists; where the table stands, and which rows are at fault, is all that differs from folders.

    Paths are absolute or relative to the table's folder. Rows that repeat another one count once.

    Args:
        table: the file.
        image: the column of paths; None takes one with a common name.
        label: the column of classes; the same.
        domain: the column of domains; None takes one with a common name if there is one, and ``none`` means one domain.
        classes: names of the classes of images without labels; the column of classes is then not used.
        allow_missing_classes: accept a class that some domain has no image of.
        as_found: accept classes that are numbers, and almost as many classes or domains as images.

    Raises:
        DataError: if the table cannot be read, or (`FaultyDataError`) no row of it can be used.
        ConfigError: if columns are missing or unknown.
    """

    RENAME = "write it alike in all rows"
    RECODE = "save the table in UTF-8"
    REMOVE = "add rows of it, or remove those that there are"
    TWO = "a classifier needs at least two classes"

    def __init__(
        self,
        table: str | Path,
        *,
        image: str | None = None,
        label: str | None = None,
        domain: str | None = None,
        classes: Sequence[str] = (),
        allow_missing_classes: bool = False,
        as_found: bool = False,
    ) -> None:
        self._table, self._named, self._wanted = Path(table), tuple(classes), (image, label, domain)
        self._problems: dict[Broken, _Rows] = {}
        self._numbers: NDArray[np.int64] = np.zeros(0, np.int64)
        self._unit = ""
        super().__init__(self._table.parent, allow_missing_classes=allow_missing_classes, as_found=as_found)
        self._check_labels()

    def _find(self) -> Cells:
        self.source = self._table
        table = open_table(self._table)
        self._unit = table.unit
        columns = find_columns(table.columns, *self._wanted, source=self._table, labelled=not self._named)
        self.columns = columns.named()
        split = [name for name in table.columns if name.strip().casefold() == SPLIT]
        if split and split[0] not in dict(self.columns).values():
            self.warnings.append(f"the column {shown(split[0])} is not used: vl2v draws its own validation split")
        cells = self._sorted(*self._read(table, columns))
        for fault, rows in self._problems.items():
            more = f" and {rows.count - len(rows.first):,} more" if rows.count > len(rows.first) else ""
            unit = self._unit if rows.count == 1 else f"{self._unit}s"
            self.faults.append(Fault(f"{unit} {', '.join(rows.first)}{more}", fault.problem, fault.remedy))
        if not cells:
            raise FaultyDataError(self._table, self.faults) if self.faults else empty(self._table)
        return cells

    def _read(
        self, table: Table, columns: Columns
    ) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64], list[str], list[str]]:
        """Paths, classes and domains of all good rows as numbers, and the names of classes and domains."""
        paths, numbers, labels, domains = [], array("q"), array("q"), array("q")
        label_of: dict[str, int] = {}
        domain_of: dict[str, int] = {}
        above = os.path.abspath(self.root).replace(os.sep, "/").rstrip("/") + "/"  # noqa: PTH100 - links stay
        own = "" if self._named else None
        alone = None if columns.domain else self.root.resolve().name or "images"
        for number, cells in table.rows([column for _, column in columns.named()]):
            values = cells if isinstance(cells, Broken) else _texts(cells, columns)
            if isinstance(values, Broken):
                self._note(number, values)
                continue
            path, *more = values
            label = own if own is not None else " ".join(more.pop(0).split())
            domain = alone if alone is not None else " ".join(more.pop(0).split())
            paths.append(_relative(path, above))
            numbers.append(number)
            labels.append(label_of.setdefault(label, len(label_of)))
            domains.append(domain_of.setdefault(domain, len(domain_of)))
        self._numbers = np.array(numbers, np.int64)
        return paths, np.array(labels, np.int64), np.array(domains, np.int64), list(label_of), list(domain_of)

    def _note(self, number: int, fault: Broken) -> None:
        rows = self._problems.setdefault(fault, _Rows())
        rows.count += 1
        if len(rows.first) < LISTED:
            rows.first.append(f"{number:,}")

    def _sorted(
        self,
        paths: list[str],
        labels: NDArray[np.int64],
        domains: NDArray[np.int64],
        label_names: list[str],
        domain_names: list[str],
    ) -> Cells:
        """Files by (domain, class), each in the order of paths; a row that repeats another is left out."""
        order = np.array(sorted(range(len(paths)), key=paths.__getitem__), np.int64)
        keep = np.ones(len(paths), np.bool_)
        for before, row in self._repeated(paths, order):
            keep[row] = False
            if (labels[before], domains[before]) != (labels[row], domains[row]):
                what = "classes" if labels[before] != labels[row] else "domains"
                fault = Broken(f"a file that another row lists with other {what}", "keep one row of each file")
                self._note(int(self._numbers[row]), fault)
        if (repeated := int((~keep).sum())) and not self._problems:
            rows = "1 row repeats another" if repeated == 1 else f"{repeated:,} rows repeat others"
            self.warnings.append(f"{rows}, and count once")
        order = order[keep[order]]
        ranks = _ranks(domain_names)[domains[order]], _ranks(label_names)[labels[order]]
        order = order[np.lexsort((ranks[1], ranks[0]))]
        cells: Cells = {}
        for row in order.tolist():
            cells.setdefault((domain_names[domains[row]], label_names[labels[row]]), []).append(paths[row])
        self._numbers = self._numbers[order]
        return cells

    def _repeated(self, paths: list[str], order: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """A row, and another one after it with the same path."""
        first = -1
        for row in order.tolist():
            if first >= 0 and paths[first] == paths[row]:
                yield first, row
            else:
                first = row

    def _classes(self, cells: Cells) -> tuple[str, ...]:
        return self._named or super()._classes(cells)

    def _labels(self, keys: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
        return np.full(len(keys), -1, np.int64) if self._named else super()._labels(keys)

    def _check_names(self, allow_missing: bool) -> None:
        for role, names in (("label", self.folders), ("domain", self.domains)):
            column = dict(self.columns).get(role)
            if column and len(names) > MANY and 2 * len(names) > len(self._numbers):
                problem = f"{len(names):,} different values for {len(self._numbers):,} images"
                remedy = f"name the column of the {role} with --{role}, or accept it: --layout-as-found"
                self._doubt(Fault(f"column {shown(column)}", problem, remedy))
                return  # else each of them would be a fault of its own
        if not self._named:
            super()._check_names(allow_missing)

    def _check_labels(self) -> None:
        """Numbers in place of names, of which no teacher knows anything."""
        column = dict(self.columns).get("label", "")
        plain = [f for f, phrase in zip(self.folders, self.phrases, strict=True) if phrase == spaced(f)]
        if not self._named and plain and len(plain) == sum(bool(NUMBER.fullmatch(name)) for name in plain):
            problem = f"numbers in place of names of classes, such as {', '.join(map(shown, plain[:5]))}"
            remedy = (
                "the teacher needs class names: take a column of names (--label), or say what each number is in "
                "classes.yaml in the table's folder, or accept them: --layout-as-found"
            )
            self._doubt(Fault(f"column {shown(column)}", problem, remedy))

    def _cell(self, domain: str, folder: str) -> str:
        place = 0
        for key, files in self._files.items():
            if key == (domain, folder):
                number = int(self._numbers[place : place + len(files)].min())
                return f"'{shown(folder)}' of {shown(domain)} ({self._unit} {number:,})"
            place += len(files)
        return super()._cell(domain, folder)

    def _bad(self, places: NDArray[np.int64], faults: list[Fault]) -> list[Fault]:
        if len(faults) == len(self._numbers) > 1 and all(os.strerror(ENOENT) in fault.problem for fault in faults):
            problem = f"none of the {len(faults):,} files exists, such as {faults[0].where}"
            remedy = f"write paths that are absolute, or relative to the table's folder, {shown(self.root.absolute())}"
            return [Fault(f"column {shown(self.columns[0][1])}", problem, remedy)]
        numbers = self._numbers[places].tolist()
        return [
            replace(fault, where=f"{self._unit} {number:,}: {fault.where}")
            for number, fault in zip(numbers, faults, strict=True)
        ]


def _texts(cells: tuple[object, ...], columns: Columns) -> list[str] | Broken:
    """The texts of a row; why not, if one is missing or cannot be used."""
    found = []
    for (role, column), value in zip(columns.named(), cells, strict=True):
        text = value.strip() if isinstance(value, str) else _text(value)
        where = f"in the column {shown(column)}"
        if text is None:
            kind = "an image's bytes" if isinstance(value, bytes | dict) else f"a {type(value).__name__}"
            return Broken(f"{kind} {where}", f"the {role} of an image must be a text")
        if not text:
            return Broken(f"no {role} {where}", "fill it in, or remove the row")
        if not text.isascii() and not _encodable(text):
            return Broken(f"a text that is not UTF-8 {where}", "save the table in UTF-8")
        if role == "image" and (problem := _no_path(text)):
            return Broken(f"{problem} {where}", "download the image, and give the path of its file")
        if role != "image" and not " ".join(text.split()).isprintable():
            return Broken(f"a {role} that cannot be shown {where}", "write it in letters")
        found.append(text)
    return found


def _text(value: object) -> str | None:
    """A value as text: empty for none, None for what is no text."""
    if value is None or value != value:
        return ""
    return None if isinstance(value, bytes | dict | list | tuple) else str(value).strip()


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_path(text: str) -> str:
    """Why a text is no path of a file; empty if it may be one."""
    if ADDRESS.match(text):
        return "an address in place of a path"
    return "" if "\0" not in text else "a NUL character"


def _relative(path: str, above: str) -> str:
    """A path as a folder's scan would write it where it lies below the table's folder; `above` ends in a slash."""
    path = posixpath.normpath(path.replace(os.sep, "/"))
    return path.removeprefix(above) if path.startswith(above) else path


def _ranks(names: Sequence[str]) -> NDArray[np.int64]:
    """The position of every name in alphabetical order."""
    ranks = np.empty(len(names), np.int64)
    ranks[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return ranks
