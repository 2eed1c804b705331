"""Import a data source: write it as a table and image files, which every later step reads."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from vl2v.data.tables.base import Broken, Row, empty, open_table
from vl2v.data.tables.cells import plain_path
from vl2v.data.tables.columns import ROLES, Used, find_columns, split_hint
from vl2v.data.tables.frame import absolute, plain
from vl2v.data.tables.imported import BROKEN, IMAGES, NAME, SUFFIX, Origin, write_origin
from vl2v.errors import DataError
from vl2v.progress import Progress, Silent, warn
from vl2v.sources.base import Embedded, Records, version_of
from vl2v.sources.remote import Fetcher, holds_addresses, is_address, mentions_addresses, plain_address
from vl2v.writing import atomic_shared_write
from vl2v_runtime.formats import format_of
from vl2v_runtime.names import shown

LAYOUT = 3  # version of the written files; increased when their format changes
EVERY = 1000  # rows between two progress messages
TOGETHER = 64  # rows whose addresses are fetched concurrently


def import_records(
    table: Records, data: str, folder: Path, settings: Mapping[str, Any], progress: Progress | None = None
) -> Path:
    """Import an open dataset: write used columns to a table, and embedded images to files. Return the table's path.

    Rows are streamed, so memory does not grow with the data. An image file is named by its hash and written once. A
    dataset that has not changed since it was imported is not read again.

    Args:
        data: path or address of the dataset.
        folder: folder of the table and the images, created if missing.
        settings: settings of `data`: image, label, domain, split, group and classes, all optional.
        progress: receives a message every 1000 rows.

    Raises:
        Vl2vError: if the dataset cannot be read, has no rows, or columns are missing.
    """
    columns = _columns(table, data, settings)
    if progress and "label" in dict(columns) and (hint := split_hint(table, columns)):
        warn(progress, hint)
    origin = Origin(data, _folder_of(data), dict(columns))
    key = hashlib.sha256(json.dumps([LAYOUT, asdict(origin), table.version]).encode()).hexdigest()
    marker = folder / f"{key[:16]}.import"
    if table.version and (ready := _ready(marker, folder)):
        return ready
    folder.mkdir(parents=True, exist_ok=True)
    fetcher = Fetcher(folder, partial(_stored, folder=folder))
    target = _write(table, columns, origin, fetcher, progress or Silent())
    write_origin(target, origin)
    if not fetcher.failed:
        marker.write_text(target.name, encoding="utf-8")
    return target


def import_table(
    path: Path, data: str, folder: Path, settings: Mapping[str, Any], progress: Progress | None = None
) -> Path | None:
    """Import a table that contains addresses of images.

    Args:
        data: the table as the user named it, for messages.

    Returns:
        Path of the imported table; None if all images of the table are paths.
    """
    if not path.is_file() or not mentions_addresses(path):
        return None
    table = PathTable(path)
    columns = _columns(table, data, settings)
    if not holds_addresses(table.rows([dict(columns)["image"]])):
        return None
    return import_records(table, data, folder, settings, progress)


class PathTable:
    """A plain table whose relative paths are resolved from its folder."""

    roles: Mapping[str, str] = {}

    def __init__(self, path: Path) -> None:
        self._table, self._folder = open_table(path), path.absolute().parent
        self.unit, self.columns, self.version = self._table.unit, self._table.columns, version_of([path])

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """See `vl2v.data.tables.base.Table.rows`."""
        for number, cells in self._table.rows(columns):
            if isinstance(cells, Broken) or not isinstance(cells[0], str) or not (path := plain_path(cells[0])):
                yield number, cells
            else:
                yield number, (path if is_address(path) else str(self._folder / path), *cells[1:])


def _columns(table: Records, data: str, settings: Mapping[str, Any]) -> Used:
    column_of, labelled = {role: settings.get(role) for role in ROLES}, not settings.get("classes")
    source_columns = {role: column for role, column in table.roles.items() if labelled or role != "label"}
    column_of = {role: source_columns.get(role) if column is None else column for role, column in column_of.items()}
    return find_columns(table.columns, column_of, source=Path(data), labelled=labelled)


def _ready(marker: Path, folder: Path) -> Path | None:
    """Return the table of an earlier import if it and its first image still exist."""
    try:
        table = folder / Path(marker.read_text(encoding="utf-8")).name
        with table.open("rb") as file:
            first = next((row for line in file if isinstance(row := json.loads(line or b"null"), dict)), {})
    except (OSError, ValueError):
        return None
    paths = [folder / value for value in first.values() if isinstance(value, str) and value.startswith(f"{IMAGES}/")]
    return table if all(path.is_file() for path in paths) else None


def _write(table: Records, columns: Used, origin: Origin, fetcher: Fetcher, progress: Progress) -> Path:
    digest, good = hashlib.sha256(json.dumps(asdict(origin)).encode()), 0  # a table has one origin
    broken: tuple[int, Broken] | None = None
    folder = fetcher.folder

    def target() -> Path:
        return folder / f"{digest.hexdigest()[:16]}{SUFFIX}"

    with atomic_shared_write(folder, target) as file:
        for row, line in _lines(table, columns, fetcher):
            file.write(line)
            digest.update(line)
            good += row is None
            broken = broken or row
            if good and good % EVERY == 0:
                progress.note(f"{shown(origin.data)}: {good:,} rows are imported")
        if not good:
            raise _no_rows(origin.data, table.unit, broken)
    return target()


def _no_rows(data: str, unit: str, broken: tuple[int, Broken] | None) -> DataError:
    if broken is None:
        return empty(Path(data))
    number, first = broken
    found = f"{unit} {number:,}: {first.problem}; the others cannot be used either"
    problem = f"No {unit} of {shown(data)} can be used."
    return DataError(problem, expected="images and classes", found=found, next_step=first.remedy)


def _lines(table: Records, columns: Used, fetcher: Fetcher) -> Iterator[tuple[tuple[int, Broken] | None, bytes]]:
    """Iterate over the lines of the imported table, each with the number and the problem of a row that is not usable.

    Line numbers are row numbers: rows that the source skips become empty lines. Embedded images are written before the
    next row is read, and addresses are fetched for `TOGETHER` rows at a time.
    """
    names = [column for _, column in columns]
    following = 1
    rows = ((number, _record(cells, names, fetcher.folder)) for number, cells in table.rows(names))
    while chunk := list(islice(rows, TOGETHER)):
        paths = [None if isinstance(row, Broken) else row[names[0]] for _, row in chunk]
        addresses = [path for path in paths if isinstance(path, str) and is_address(path)]
        fetched = fetcher.fetch(addresses) if addresses else {}
        for (number, row), path in zip(chunk, paths, strict=True):
            gap, following = b"\n" * (number - following), number + 1
            if not isinstance(row, Broken) and isinstance(path, str) and path in fetched:
                image = fetched[path]
                row = image if isinstance(image, Broken) else row | {names[0]: image, NAME: plain_address(path)}
            broken = row if isinstance(row, Broken) else None
            record = row if not isinstance(row, Broken) else _broken(row)
            yield (number, broken) if broken else None, gap + json.dumps(record).encode() + b"\n"


def _broken(row: Broken) -> dict[str, Any]:
    return {BROKEN: [row.problem, row.remedy, row.file]} | ({NAME: row.name} if row.name else {})


def _record(cells: tuple[object, ...] | Broken, names: Sequence[str], folder: Path) -> dict[str, Any] | Broken:
    """Return the values of a row by column. An embedded image is written to a file."""
    if isinstance(cells, Broken):
        return cells
    image = cells[0]
    path = _stored(image.data, folder) if isinstance(image, Embedded) else absolute(image)
    record = {names[0]: path} | {name: plain(value) for name, value in zip(names[1:], cells[1:], strict=True)}
    return record | ({NAME: image.name} if isinstance(image, Embedded) and image.name else {})


def _stored(data: bytes, folder: Path) -> str:
    """Write an image file named by its hash, unless it exists, and return its path relative to the folder."""
    digest, form = hashlib.sha256(data).hexdigest(), format_of(data)
    path = f"{IMAGES}/{digest[:2]}/{digest}{form.suffixes[0] if form else ''}"
    target = folder / path
    if not (target.is_file() and target.stat().st_size == len(data)):
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_shared_write(target.parent, lambda: target) as file:
            file.write(data)
    return path


def _folder_of(data: str) -> str:
    """Return the folder of a local source, which may contain `classes.yaml`; empty for an address."""
    path = Path(os.path.abspath(data))  # noqa: PTH100 - links stay
    return str(path if path.is_dir() else path.parent) if path.exists() or path.parent.is_dir() else ""
