"""Tables that vl2v imported from datasets of other tools, with their row numbers and names."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

FOLDER = "tables"  # of the written tables, in the folder of the embedding store
FRAME = re.compile(r"[0-9a-f]{16}\.jsonl")  # name of a table that was written from a frame
SUFFIX = ".rows.jsonl"
BROKEN = "@broken"  # in place of columns: problem and remedy of a row that cannot be read
NAME = "@name"  # next to the columns: name of the image in the dataset, such as its shard and key
IMAGES = "images"  # folder of the copies of embedded and fetched images, next to the table


@dataclass(frozen=True)
class Origin:
    """The dataset from which a table was imported.

    Attributes:
        data: path or address, as the user named it.
        folder: folder that may contain `classes.yaml`; empty if there is none.
        columns: columns of the table by role.
    """

    data: str
    folder: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Short name of the data."""
        last = self.data.replace("\\", "/").rstrip("/").rpartition("/")[2]
        return last.partition("@")[0].partition(".")[0].strip("-_{}*") or "images"


def is_imported(table: Path) -> bool:
    """Return whether a table was imported by vl2v, according to its name."""
    return table.name.endswith(SUFFIX)


def is_copy(table: Path, path: str) -> bool:
    """Return whether a path in a table names a copy of an image that vl2v wrote when it imported the table."""
    return is_imported(table) and path.startswith(f"{IMAGES}/")


def origin_of(table: Path) -> Origin | None:
    """Return the origin of an imported table; None for other tables, or if it is unknown."""
    if not is_imported(table):
        return None
    try:
        content = json.loads(_note(table).read_text(encoding="utf-8"))
        columns = {str(role): str(column) for role, column in content["columns"].items()}
        return Origin(str(content["data"]), str(content["folder"]), columns)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def source_of(table: Path) -> Path:
    """Return the dataset that a table was imported from, as the user named it; the table itself if it was not."""
    if origin := origin_of(table):
        return Path(origin.data)
    return Path("the frame") if table.parent.name == FOLDER and FRAME.fullmatch(table.name) else table


def name_of(root: Path) -> str:
    """Return a short name of a folder, a table, or the dataset that a table was imported from."""
    origin = origin_of(root)
    return origin.name if origin else source_of(root).name


def names_of_rows(table: Path, rows: Collection[int] | None = None) -> dict[int, str]:
    """Return the names that the images of an imported table have in its dataset, by row number.

    Args:
        rows: numbers of the rows; None for all. Rows without such a name are missing in the result.
    """
    wanted = None if rows is None else frozenset(rows)
    records = _records(table) if wanted is None or wanted else ()
    return {
        number: name
        for number, record in records
        if (wanted is None or number in wanted) and isinstance(name := record.get(NAME), str) and name
    }


def names_of_paths(table: Path, paths: Collection[str]) -> dict[str, str]:
    """Return the names that copies of images have in the dataset of an imported table, by path: ``row 7`` at least.

    Args:
        paths: paths relative to the folder of the table. Those of files that vl2v did not write have no other name.
    """
    wanted = {path for path in paths if is_copy(table, path)}
    names: dict[str, str] = {}
    for number, record in _records(table) if wanted else ():
        path = next(iter(record.values()), None)
        if isinstance(path, str) and path in wanted and path not in names:
            names[path] = str(record.get(NAME) or f"row {number:,}")
    return names


def _records(table: Path) -> Iterator[tuple[int, dict[str, object]]]:
    if not is_imported(table) or not table.is_file():
        return
    with table.open("rb") as file:
        for number, line in enumerate(file, 1):
            record = json.loads(line) if line.strip() else None
            if isinstance(record, dict):
                yield number, record


def write_origin(table: Path, origin: Origin) -> None:
    """Record the origin of an imported table."""
    _note(table).write_text(json.dumps(asdict(origin)), encoding="utf-8")


def columns_asked(table: Path, settings: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the columns that the user names by role. Those of an imported table are the defaults."""
    origin = origin_of(table)
    defaults = origin.columns if origin else {}
    return {
        role: defaults.get(role) if settings.get(role) is None else settings[role] for role in {*settings, *defaults}
    }


def _note(table: Path) -> Path:
    return table.with_name(table.name.removesuffix(".jsonl") + ".origin")
