"""Values of figures as CSV files."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vl2v.writing import atomic_write
from vl2v_runtime.names import cell, printable

Value = str | int | float | None


@dataclass(frozen=True)
class Sheet:
    """A table of values.

    Attributes:
        name: name of the file, without its suffix.
        rows: numbers in full precision, shares and accuracies in [0, 1]. None for a missing value.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]

    @property
    def file(self) -> str:
        """Name of the file."""
        return f"{self.name}.csv"

    def write(self, folder: Path) -> None:
        """Write ``<name>.csv`` to an existing folder."""
        with atomic_write(folder / self.file) as fresh, fresh.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows([_text(value) for value in row] for row in self.rows)


def _text(value: Value) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return cell(printable(value)) if isinstance(value, str) else repr(value)
