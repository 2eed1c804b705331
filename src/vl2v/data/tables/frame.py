"""Save frames of pandas, polars and pyarrow as JSON lines, without importing these packages.

A run records the path of the file, so it can be resumed, exported and reported on without the frame.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vl2v.data.tables.base import Row
from vl2v.data.tables.cells import is_missing, plain_path
from vl2v.data.tables.columns import ROLES, find_columns, split_hint
from vl2v.errors import ConfigError
from vl2v.progress import Progress, warn
from vl2v.writing import atomic_shared_write

LISTS = ("to_list", "tolist", "to_pylist")

Cell = str | dict[str, str] | list[str] | None  # a text; one of the others is refused where the table is read


class Frame(Protocol):
    """A frame of pandas or polars, or a table of pyarrow."""

    def __getitem__(self, column: Any, /) -> Any: ...


def frame_columns(frame: object) -> list[str]:
    """Return the names of the columns of a frame.

    Raises:
        ConfigError: if the object is not a frame.
    """
    return [str(name) for name in _keys(frame)]


def _keys(frame: object) -> list[object]:
    """Return the keys of the columns of a frame, which pandas allows to be numbers."""
    lazy = "Lazy" in type(frame).__name__
    keys = None if lazy else getattr(frame, "column_names", None)  # of pyarrow, whose `columns` are arrays
    keys = keys if isinstance(keys, list) or lazy else getattr(frame, "columns", None)
    if keys is None or not hasattr(frame, "__getitem__"):
        raise ConfigError(
            "This is neither a path nor a frame.",
            expected="a folder or a table as str or Path, or a frame of pandas or polars",
            found=type(frame).__name__,
            next_step="collect it first" if lazy else "see the help of vl2v.distill",
        )
    return list(keys)


class _FrameTable:
    """A frame as a `vl2v.data.tables.base.Table`, whose rows are numbered from 1."""

    def __init__(self, frame: Any) -> None:
        self._frame, self._keys = frame, _keys(frame)
        self.columns, self.unit = tuple(map(str, self._keys)), "row"

    def values(self, column: str) -> list[Any]:
        series = self._frame[self._keys[self.columns.index(column)]]
        method = next((getattr(series, name) for name in LISTS if hasattr(series, name)), None)
        return list(series) if method is None else list(method())

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        return enumerate(zip(*map(self.values, columns), strict=True), 1)


def write_frame(frame: Any, folder: Path, settings: Mapping[str, Any], progress: Progress | None = None) -> Path:
    """Write the columns of a frame that are used to a file named by its hash, and return its path.

    Args:
        frame: a `Frame`. Relative paths are resolved from the current folder.
        folder: folder of the file, created if missing.
        settings: settings of `data`: image, label, domain, split, group and classes, all optional.
        progress: receives a warning if a column is probably a split, but is not used.

    Raises:
        ConfigError: if the object is not a frame, or columns are missing.
    """
    table = _FrameTable(frame)
    roles = {role: settings.get(role) for role in ROLES}
    used = find_columns(table.columns, roles, source=Path("the frame"), labelled=not settings.get("classes"))
    columns = [column for _, column in used]
    if progress and "label" in dict(used) and (hint := split_hint(table, used)):
        warn(progress, hint)
    values = [table.values(column) for column in columns]
    digest = hashlib.sha256()
    for row in _rows(columns, values):
        digest.update(row)
    target = folder / f"{digest.hexdigest()[:16]}.jsonl"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_shared_write(folder, lambda: target) as file:
            file.writelines(_rows(columns, values))
    return target


def _rows(columns: list[str], values: list[list[Any]]) -> Iterator[bytes]:
    for path, *more in zip(*values, strict=True):
        cells = [absolute(path), *map(plain, more)]
        yield json.dumps(dict(zip(columns, cells, strict=True))).encode() + b"\n"


def plain(value: Any) -> Cell:
    """Convert a value to text. None if it is missing; {} for bytes and images, and [] for other containers."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview | Mapping) or type(value).__module__.startswith("PIL."):
        return {}
    if isinstance(value, Iterable):
        return []
    return None if is_missing(value) else str(value)


def absolute(value: Any) -> Cell:
    """Make a path absolute from the current folder. Addresses are unchanged; see `plain` for other values."""
    cell = plain(value)
    text = plain_path(cell) if isinstance(cell, str) else ""
    if not text:
        return None if isinstance(cell, str) else cell
    return text if "://" in text else os.path.abspath(text)  # noqa: PTH100 - links stay
