"""Tables that vl2v wrote itself from a dataset of another tool: rows keep their numbers, and its name is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

SUFFIX = ".rows.jsonl"
BROKEN = "@broken"  # in place of columns: problem and remedy of a row that cannot be read


@dataclass(frozen=True)
class Origin:
    """Where an imported table is from.

    Attributes:
        data: as the user named it.
        folder: where `classes.yaml` may lie; empty for none.
        columns: by role, all that the table has.
    """

    data: str
    folder: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A short name of the data."""
        last = self.data.replace("\\", "/").rstrip("/").rpartition("/")[2]
        return last.partition("@")[0].partition(".")[0].strip("-_{}*") or "images"


def is_imported(table: Path) -> bool:
    """Whether vl2v wrote a table itself, by its name."""
    return table.name.endswith(SUFFIX)


def origin_of(table: Path) -> Origin | None:
    """Where an imported table is from; None for any other table, and where that is not known."""
    if not is_imported(table):
        return None
    try:
        found = json.loads(_note(table).read_text(encoding="utf-8"))
        columns = {str(role): str(column) for role, column in found["columns"].items()}
        return Origin(str(found["data"]), str(found["folder"]), columns)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def name_of(root: Path) -> str:
    """A short name of data: of a folder, a table, or what a table was imported from."""
    origin = origin_of(root)
    return origin.name if origin else root.name


def write_origin(table: Path, origin: Origin) -> None:
    """Note where an imported table is from."""
    _note(table).write_text(json.dumps(asdict(origin)), encoding="utf-8")


def columns_asked(table: Path, wanted: Mapping[str, str | None]) -> dict[str, str | None]:
    """Columns by role, as the user names them; of an imported table, those that it was imported with fill the gaps."""
    origin = origin_of(table)
    known = origin.columns if origin else {}
    return {role: known.get(role) if wanted.get(role) is None else wanted[role] for role in {*wanted, *known}}


def _note(table: Path) -> Path:
    return table.with_name(table.name.removesuffix(".jsonl") + ".origin")
