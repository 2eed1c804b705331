"""Parquet files with a column of paths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vl2v.data.parquet_images import class_names
from vl2v.data.tables.base import Row
from vl2v.errors import DataError, MissingExtraError
from vl2v.parquet_files import batches_of, open_parquet
from vl2v_runtime.names import shown

BATCH = 4096  # rows read at once


class ParquetTable:
    """A Parquet file. Class indices become class names if the package `datasets` saved the names in the file.

    Raises:
        DataError: if the file is not Parquet.
        MissingExtraError: if pyarrow is not installed.
    """

    unit = "row"

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as file:
            schema = file.schema_arrow
            self.columns = tuple(schema.names)
            self._names = class_names(schema.metadata or {})

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """See `Table.rows`."""
        from pyarrow import ArrowException

        number = 0
        try:
            with self._open() as file:
                for batch in batches_of(file, columns, BATCH):
                    values = [self._values(column, batch.column(column)) for column in columns]
                    for cells in zip(*values, strict=True):
                        number += 1
                        yield number, cells
        except (ArrowException, OSError) as error:
            raise self._broken(error) from error

    def _values(self, column: str, values: Any) -> list[object]:
        cells: list[object] = values.to_pylist()
        names = self._names.get(column)
        if names is None:
            return cells
        return [names[v] if isinstance(v, int) and 0 <= v < len(names) else v for v in cells]

    def _open(self) -> Any:
        try:
            from pyarrow import ArrowException
        except ImportError as error:
            raise MissingExtraError("Reading Parquet", "parquet", "pyarrow") from error
        try:
            return open_parquet(self._path)
        except (ArrowException, OSError) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> DataError:
        found, step = " ".join(str(error).split())[:200], "write the file again"
        return DataError(f"{shown(self._path)} cannot be read.", expected="Parquet", found=found, next_step=step)
