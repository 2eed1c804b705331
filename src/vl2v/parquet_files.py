"""Parquet files, which may come from strangers, read in batches of limited size."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vl2v.errors import MissingExtraError

BATCH_BYTES = 2**29  # of a column in a batch; a value that a file stores once may occur in every row
MOST_VALUES = 2**24  # of a column in a row group, beyond one per row


def open_parquet(path: Path) -> Any:
    """Open a Parquet file as a `pyarrow.parquet.ParquetFile`, a context manager.

    Raises:
        MissingExtraError: if pyarrow is not installed.
        pyarrow.ArrowException, OSError: if the file cannot be read, or is not regular (EINVAL).
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError("Reading Parquet", "parquet", "pyarrow") from error
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "a folder, a pipe or a device instead of the file", str(path))
    # A buffered stream and no pre-buffering: else row groups are read ahead into memory.
    return parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)


def batches_of(file: Any, columns: Sequence[str], rows: int, most_values: int = MOST_VALUES) -> Iterator[Any]:
    """Iterate over the rows of a file in record batches.

    Args:
        file: an open file; see `open_parquet`.
        columns: names of the columns to read.
        rows: maximum number of rows in a batch. If a batch could exceed `BATCH_BYTES`, it has fewer.
        most_values: maximum number of values in the lists of a column, per row group.

    Raises:
        pyarrow.ArrowInvalid: if a column has more values.
        pyarrow.ArrowException, OSError: if the file cannot be read.
    """
    for number in range(file.num_row_groups):
        count = _rows_within(file.metadata.row_group(number), columns, rows, most_values)
        yield from file.iter_batches(count, row_groups=[number], columns=list(columns), use_threads=False)


def _rows_within(group: Any, columns: Sequence[str], rows: int, most_values: int) -> int:
    """Return the number of rows whose values cannot exceed `BATCH_BYTES`, at least 1 and at most `rows`.

    No text is larger than its column in the row group. Without a dictionary, all texts together are not larger. The
    number of values limits the size of numbers.
    """
    import pyarrow as pa

    largest = 1
    for chunk in map(group.column, range(group.num_columns)):
        name = chunk.path_in_schema
        if not any(name == column or name.startswith(f"{column}.") for column in columns):
            continue
        if chunk.num_values > max(group.num_rows, most_values):
            raise pa.ArrowInvalid(f"a column {name[:100]} with {chunk.num_values:,} values in {group.num_rows:,} rows")
        if "BYTE_ARRAY" in chunk.physical_type and any("DICTIONARY" in encoding for encoding in chunk.encodings):
            largest = max(largest, chunk.total_uncompressed_size)
    return max(1, min(rows, BATCH_BYTES // largest))
