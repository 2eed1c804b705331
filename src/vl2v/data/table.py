"""Datasets listed in a table, with one row per image: path, class and domain."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from errno import ENOENT
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v.data.images import spaced
from vl2v.data.layout import ACCEPT, doubtful
from vl2v.data.listing import Cells, FaultyDataError, Listing
from vl2v.data.scan import Fault
from vl2v.data.splits import part_of
from vl2v.data.tables.base import Broken, Table, empty, open_table
from vl2v.data.tables.cells import above_of, relative_path, rows_of_texts
from vl2v.data.tables.columns import NONE, SPLIT, find_columns, split_hint
from vl2v.data.tables.imported import columns_asked, is_imported, names_of_rows, origin_of, source_of
from vl2v_runtime.names import shown

LISTED = 20  # rows named in a fault; the rest are counted
MANY = 20  # different values of a column in more than half of the rows, from which they are taken for something else


@dataclass
class _Rows:
    """Rows with the same fault: the numbers of the first ones, and the count."""

    first: list[int] = field(default_factory=list)
    count: int = 0


@dataclass
class _Read:
    """Content of the usable rows of a table, in their order.

    Attributes:
        label: indices of the classes.
        names: indices of classes, domains and groups by name, for each role.
    """

    paths: list[str] = field(default_factory=list)
    rows: array[int] = field(default_factory=lambda: array("q"))
    label: array[int] = field(default_factory=lambda: array("q"))
    domain: array[int] = field(default_factory=lambda: array("q"))
    group: array[int] = field(default_factory=lambda: array("q"))
    part: array[int] = field(default_factory=lambda: array("b"))
    names: dict[str, dict[str, int]] = field(default_factory=lambda: {"label": {}, "domain": {}, "group": {}})

    def fill(self, names: Mapping[str, str]) -> None:
        """Set the default name of each role without a column, and the default part, in all rows."""
        for role, name in names.items():
            if not self.names[role]:
                self.names[role][name] = 0
                getattr(self, role).frombytes(bytes(8 * len(self.paths)))
        if not self.part:
            self.part.frombytes(bytes(len(self.paths)))


class TableListing(Listing):
    """Images listed in a table. Faults name the rows; otherwise it behaves like a folder.

    Paths are absolute or relative to the folder of the table. Repeated rows count once.

    Args:
        columns: names of columns by role. ``image`` (paths), ``label`` (classes) and ``domain`` default to columns with
            common names. A domain of ``none`` means a single domain. ``split`` (train, validation, test) and ``group``
            have no default.
        classes: names of the classes of images without labels. The column of classes is then not used.
        allow_missing_classes: accept classes that are missing from some domains.
        as_found: accept classes that are numbers, and almost as many classes or domains as images.
        one_class: see `Listing`.

    Raises:
        DataError: if the table cannot be read, or (`FaultyDataError`) has no usable row.
        ConfigError: if columns are missing or unknown.
    """

    RENAME = "use one spelling in all rows"
    RECODE = "save the table in UTF-8"
    REMOVE = "add rows for it, or remove the rows that it has"
    TWO = "a classifier needs at least two classes"

    def __init__(
        self,
        table: str | Path,
        *,
        columns: Mapping[str, str | None] | None = None,
        classes: Sequence[str] = (),
        allow_missing_classes: bool = False,
        as_found: bool = False,
        one_class: bool = False,
    ) -> None:
        self._table, self._class_names, self._columns_by_role = Path(table), tuple(classes), dict(columns or {})
        self._problems: dict[Broken, _Rows] = {}
        self._numbers: NDArray[np.int64] = np.zeros(0, np.int64)
        self._unit = self._name = ""
        super().__init__(
            self._table.parent, allow_missing_classes=allow_missing_classes, as_found=as_found, one_class=one_class
        )
        self._check_labels()

    def _find(self) -> Cells:
        origin = origin_of(self._table)
        self.source, self.imported = source_of(self._table), self._table if is_imported(self._table) else None
        self._name = origin.name if origin else self.root.resolve().name or "images"
        table = open_table(self._table)
        self._unit = table.unit
        wanted, labelled = columns_asked(self._table, self._columns_by_role), not self._class_names
        self.columns = find_columns(table.columns, wanted, source=self.source, labelled=labelled)
        if hint := split_hint(table, self.columns):
            self.warnings.append(hint)
        cells = self._sorted(self._read(table))
        names = names_of_rows(self._table, {row for rows in self._problems.values() for row in rows.first})
        for fault, rows in self._problems.items():
            more = f" and {rows.count - len(rows.first):,} more" if rows.count > len(rows.first) else ""
            unit = self._unit if rows.count == 1 else f"{self._unit}s"
            listed = (f"{row:,} ({shown(names[row])})" if row in names else f"{row:,}" for row in rows.first)
            where = f"{unit} {', '.join(listed)}{more}"
            self.faults.append(Fault(where, fault.problem, fault.remedy, fault.file, rows.count))
        if not cells:
            raise FaultyDataError(self.source, self.faults) if self.faults else empty(self.source)
        return cells

    def _read(self, table: Table) -> _Read:
        """Read the usable rows, and record the faults of the others."""
        content = _Read()
        above = above_of(self.root)
        roles = [role for role, _ in self.columns]
        value_lists = [(roles.index(r), getattr(content, r), content.names[r]) for r in content.names if r in roles]
        split = roles.index(SPLIT) if SPLIT in roles else 0
        for number, values in rows_of_texts(table, self.columns):
            if isinstance(values, Broken):
                self._note(number, values)
                continue
            content.paths.append(relative_path(values[0], above))
            content.rows.append(number)
            for column, numbers, names in value_lists:
                numbers.append(names.setdefault(values[column], len(names)))
            if split:
                content.part.append(part_of(values[split]) or 0)
        content.fill({"label": "", "domain": self._name, "group": ""})
        self._numbers = np.asarray(content.rows, np.int64)
        return content

    def _note(self, number: int, fault: Broken) -> None:
        rows = self._problems.setdefault(fault, _Rows())
        rows.count += 1
        if len(rows.first) < LISTED:
            rows.first.append(number)

    def _sorted(self, read: _Read) -> Cells:
        """Return paths by (domain, class), sorted, without repeated rows."""
        paths, columns = read.paths, dict(self.columns)
        labels, domains, groups = (np.asarray(numbers, np.int64) for numbers in (read.label, read.domain, read.group))
        parts = np.asarray(read.part, np.int8)
        values = (("classes", labels), ("domains", domains), ("splits", parts), ("groups", groups))
        order = np.array(sorted(range(len(paths)), key=paths.__getitem__), np.int64)
        keep = np.ones(len(paths), np.bool_)
        for before, row in sorted(self._repeated(paths, order), key=itemgetter(1)):
            keep[row] = False
            if what := [name for name, numbers in values if numbers[before] != numbers[row]]:
                self._note(int(self._numbers[row]), self._contradiction(what[0]))
        if (repeated := int((~keep).sum())) and not self._problems:
            rows = "1 row repeats another" if repeated == 1 else f"{repeated:,} rows repeat others"
            self.warnings.append(f"{rows}; repeated rows count once")
        if "split" in columns and "group" in columns:
            self._check_groups(parts, groups)
        order = order[keep[order]]
        ranks = _ranks(list(read.names["domain"]))[domains[order]], _ranks(list(read.names["label"]))[labels[order]]
        order = order[np.lexsort((ranks[1], ranks[0]))]
        label_names, domain_names = list(read.names["label"]), list(read.names["domain"])
        cells: Cells = {}
        for row in order.tolist():
            cells.setdefault((domain_names[domains[row]], label_names[labels[row]]), []).append(paths[row])
        self._numbers = self._numbers[order]
        self.parts = parts[order] if "split" in columns else None
        self.groups = _ranks(list(read.names["group"]))[groups[order]] if "group" in columns else None
        return cells

    def _contradiction(self, what: str) -> Broken:
        """Return the fault of a row that repeats an image with other values. An imported dataset cannot be edited."""
        if self.imported:
            remedy = "keep one row of each image, or use the first one: --skip-bad"
            return Broken(f"a copy of the image of an earlier row, with different {what}", remedy, file=True)
        return Broken(f"a file that another row lists with different {what}", "keep one row of each file")

    def _check_groups(self, parts: NDArray[np.int8], groups: NDArray[np.int64]) -> None:
        """Report groups that the stated split divides."""
        firsts = np.unique(groups, return_index=True)[1]
        for row in np.flatnonzero(parts != parts[firsts][groups]).tolist():
            fault = Broken("a row of a group that another row puts into another split", "keep a group in one split")
            self._note(int(self._numbers[row]), fault)

    def _repeated(self, paths: list[str], order: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Iterate over pairs of rows with the same path."""
        first = -1
        for row in order.tolist():
            if first >= 0 and paths[first] == paths[row]:
                yield first, row
            else:
                first = row

    def _described_in(self) -> Path:
        origin = origin_of(self._table)
        return Path(origin.folder) if origin and origin.folder else self.root

    def _classes(self, cells: Cells) -> tuple[str, ...]:
        return self._class_names or super()._classes(cells)

    def _labels(self) -> list[int]:
        return [-1] * len(self._files) if self._class_names else super()._labels()

    def _check_names(self, allow_missing: bool) -> None:
        for role, names in (("label", self.folders), ("domain", self.domains)):
            column = dict(self.columns).get(role)
            if column and len(names) > MANY and 2 * len(names) > len(self._numbers):
                problem = f"{len(names):,} different values for {len(self._numbers):,} images"
                remedy = f"name the column of the {role} with --{role}, or accept it: --layout-as-found"
                self._doubt(Fault(f"column {shown(column)}", problem, remedy))
                return  # else each of them would be a fault of its own
        if not self._class_names:
            super()._check_names(allow_missing)

    def _check_domains(self) -> None:
        if len(self.domains) > 1 and all(part_of(name) is not None for name in self.domains):
            column = shown(dict(self.columns)["domain"])
            remedy = f"use it as the split: --split {column} --domain-column none, or a column of domains, {ACCEPT}"
            names = ", ".join(map(shown, self.domains))
            self._doubt(Fault(f"column {column}", f"splits of one dataset, read as domains: {names}", remedy))
        super()._check_domains()

    def _check_labels(self) -> None:
        """Report classes that are probably not names, such as numbers, which a teacher cannot interpret."""
        if self._class_names:
            return
        where = f"column {shown(dict(self.columns).get('label', ''))}"
        described = [f for f, phrase in zip(self.folders, self.phrases, strict=True) if phrase != spaced(f)]
        for problem, remedy in doubtful(self.folders, described):
            self._doubt(Fault(where, problem, remedy))

    def _cell(self, domain: str, folder: str) -> str:
        start = 0
        for key, files in self._files.items():
            if key == (domain, folder):
                number = int(self._numbers[start : start + len(files)].min())
                return f"'{shown(folder)}' of {shown(domain)} ({self._unit} {number:,})"
            start += len(files)
        return super()._cell(domain, folder)

    def _bad(self, rows: NDArray[np.int64], faults: list[Fault]) -> list[Fault]:
        if len(faults) == len(self._numbers) > 1 and all(os.strerror(ENOENT) in fault.problem for fault in faults):
            problem = f"none of the {len(faults):,} files exists, such as {faults[0].where}"
            remedy = f"write paths that are absolute, or relative to the table's folder, {shown(self.root.absolute())}"
            if origin_of(self._table):
                remedy = f"put the images next to {shown(self.source.name)}, or into a folder images next to it"
            if self.as_found:  # as of a run that was started before
                remedy += "; if the images of a run have moved, name a new table: --data, or with --resume DATA"
            return [Fault(f"column {shown(self.columns[0][1])}", problem, remedy)]
        numbers = self._numbers[rows].tolist()
        names = names_of_rows(self._table, numbers)
        return [
            replace(fault, where=f"{self._unit} {number:,}: {shown(names[number]) if number in names else fault.where}")
            for number, fault in sorted(zip(numbers, faults, strict=True), key=lambda pair: pair[0])
        ]


def unlabelled_paths(table: str | Path, image: str | None) -> tuple[list[str], list[Fault]]:
    """Return the paths of the images of a table, sorted, and the faults of its rows. Labels are not read.

    Args:
        image: column of the paths. If the table has no such column, one with a common name is used.

    Raises:
        DataError: if the table cannot be read.
        ConfigError: if it has no column of images.
    """
    rows = open_table(Path(table))
    origin = columns_asked(Path(table), {})
    image_column = image if image in rows.columns else origin.get("image")
    columns = find_columns(rows.columns, {"image": image_column, "domain": NONE}, source=Path(table), labelled=False)
    above = above_of(Path(table).parent)
    paths: set[str] = set()
    faults = []
    for number, values in rows_of_texts(rows, columns):
        if isinstance(values, Broken):
            name = f" ({shown(values.name)})" if values.name else ""
            faults.append(Fault(f"{rows.unit} {number:,}{name}", values.problem, values.remedy, values.file))
        else:
            paths.add(relative_path(values[0], above))
    return sorted(paths), faults


def _ranks(names: Sequence[str]) -> NDArray[np.int64]:
    """Return the rank of each name in alphabetical order."""
    ranks = np.empty(len(names), np.int64)
    ranks[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return ranks
