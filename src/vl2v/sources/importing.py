"""Write a source as a table and image files, so that everything after it reads a table."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from vl2v.data.tables.base import Broken, empty
from vl2v.data.tables.columns import ROLES, Columns, find_columns
from vl2v.data.tables.frame import absolute, plain
from vl2v.data.tables.imported import BROKEN, SUFFIX, Origin, write_origin
from vl2v.errors import DataError
from vl2v.progress import Progress, Silent
from vl2v.sources.base import Embedded, Records, Source
from vl2v_runtime.formats import format_of
from vl2v_runtime.names import shown

IMAGES = "images"
LAYOUT = 1  # changes when the same source is written in another way
EVERY = 1000  # rows between two lines of progress


def import_source(
    source: Source, data: str, folder: Path, settings: Mapping[str, Any], progress: Progress | None = None
) -> Path:
    """Write the columns of a source that are used, and the images that it holds; each once.

    Rows are read one by one, so memory does not grow with the data. Images are named by their content. A source that
    did not change since is not read again.

    Args:
        source: the kind.
        data: as the user names it.
        folder: where table and images go; made if missing.
        settings: of `data`: image, label, domain, split, group and classes, each of which may be missing.
        progress: told of every thousand rows.

    Returns:
        The table.

    Raises:
        Vl2vError: if the source cannot be read, has no row, or columns are missing.
    """
    table = source.open(data)
    asked = {role: settings.get(role) for role in ROLES}
    asked = {role: table.roles.get(role) if column is None else column for role, column in asked.items()}
    columns = find_columns(table.columns, asked, source=Path(data), labelled=not settings.get("classes"))
    key = hashlib.sha256(json.dumps([LAYOUT, data, table.version, columns.named()]).encode()).hexdigest()
    known = folder / f"{key[:16]}.import"
    if table.version and (ready := _ready(known, folder)):
        return ready
    folder.mkdir(parents=True, exist_ok=True)
    target = _write(table, columns, data, folder, progress or Silent())
    write_origin(target, Origin(data, _folder_of(data), dict(columns.named())))
    known.write_text(target.name, encoding="utf-8")
    return target


def _ready(known: Path, folder: Path) -> Path | None:
    """The table that was written before, if it and its first image are still there."""
    try:
        table = folder / Path(known.read_text(encoding="utf-8")).name
        with table.open("rb") as file:
            first = next((row for line in file if isinstance(row := json.loads(line or b"null"), dict)), {})
    except (OSError, ValueError):
        return None
    paths = [folder / value for value in first.values() if isinstance(value, str) and value.startswith(f"{IMAGES}/")]
    return table if all(path.is_file() for path in paths) else None


def _write(table: Records, columns: Columns, data: str, folder: Path, progress: Progress) -> Path:
    digest, good, broken = hashlib.sha256(), 0, None
    with NamedTemporaryFile(dir=folder, delete=False) as file:  # several processes may write the same
        try:
            for value, line in _lines(table, columns, folder):
                file.write(line)
                digest.update(line)
                good += not isinstance(value, Broken)
                broken = broken or (value if isinstance(value, Broken) else None)
                if good and good % EVERY == 0:
                    progress.note(f"{shown(data)}: {good:,} rows are imported")
            if not good:
                raise _no_rows(data, broken)
        except BaseException:
            Path(file.name).unlink()
            raise
    target = folder / f"{digest.hexdigest()[:16]}{SUFFIX}"
    Path(file.name).replace(target)
    return target


def _no_rows(data: str, broken: Broken | None) -> DataError:
    if broken is None:
        return empty(Path(data))
    problem = f"No row of {shown(data)} can be used."
    return DataError(problem, expected="images and classes", found=broken.problem, next_step=broken.remedy)


def _lines(table: Records, columns: Columns, folder: Path) -> Iterator[tuple[object, bytes]]:
    """What a row holds, and its line. Empty lines stand for rows that are left out, so a line's number is its row's."""
    names = [column for _, column in columns.named()]
    following = 1
    for number, cells in table.rows(names):
        gap, following = b"\n" * (number - following), number + 1
        if isinstance(cells, Broken):
            record: dict[str, Any] = {BROKEN: [cells.problem, cells.remedy]}
        else:
            record = {names[0]: _image(cells[0], folder)}
            record |= {name: plain(value) for name, value in zip(names[1:], cells[1:], strict=True)}
        yield cells, gap + json.dumps(record).encode() + b"\n"


def _image(value: object, folder: Path) -> str | None:
    return _stored(value.data, folder) if isinstance(value, Embedded) else absolute(value)


def _stored(data: bytes, folder: Path) -> str:
    """Write an image once, named by its content; its path below the folder."""
    digest, form = hashlib.sha256(data).hexdigest(), format_of(data)
    path = f"{IMAGES}/{digest[:2]}/{digest}{form.suffixes[0] if form else ''}"
    target = folder / path
    if not (target.is_file() and target.stat().st_size == len(data)):
        target.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=target.parent, delete=False) as file:
            file.write(data)
        Path(file.name).replace(target)
    return path


def _folder_of(data: str) -> str:
    """The folder of a local source, in which `classes.yaml` may lie."""
    path = Path(os.path.abspath(data))  # noqa: PTH100 - links stay
    return str(path if path.is_dir() else path.parent) if path.exists() or path.parent.is_dir() else ""
