"""Embeddings in Parquet files, as the teacher `file:` reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vl2v.arrays import largest
from vl2v.parquet_files import batches_of, open_parquet
from vl2v.teacher.base import Embeddings
from vl2v_runtime import strict_json

KEYS = ("path", "sha256", "text")  # columns of keys
SEVERAL = "embeddings of several dimensions, or with missing numbers"
BATCH = 4096  # rows that are read at once
Rows = tuple[list[str], Embeddings]  # N keys, and [N, D] float32


def read_parquet(path: Path) -> tuple[Rows, Rows, Mapping[str, Any]]:
    """Read the images, the texts and the scalars of a file.

    Raises:
        KeyError: if a column is missing.
        OSError, ValueError: if the file cannot be read, or is too large.
        MissingExtraError: if pyarrow is not installed.
    """
    most = largest(path)
    with open_parquet(path) as file:
        schema = file.schema_arrow
        if "embedding" not in schema.names or not {"path", "sha256"} & set(schema.names):
            raise KeyError("path" if "embedding" in schema.names else "embedding")
        columns = [name for name in ("embedding", *KEYS) if name in schema.names]
        if twice := [name for name in columns if schema.names.count(name) > 1]:
            raise ValueError(f"the column {twice[0]} twice")
        images, texts = _collected(file, columns, most)
    extra = {k.decode(): v.decode() for k, v in (schema.metadata or {}).items() if not k.startswith(b"ARROW")}
    scalars = {k: strict_json.parse(v) if k == "logit_scale" else v for k, v in extra.items()}
    return images, texts, scalars


def _collected(file: Any, columns: Sequence[str], most: int) -> tuple[Rows, Rows]:
    """Return the images and the texts of an open Parquet file, with one copy of their embeddings in memory.

    Args:
        columns: ``embedding`` and the columns of keys.
        most: maximum number of bytes.

    Raises:
        ValueError: if the file contains more, or the embeddings differ in dimension.
    """
    embeddings, size = np.zeros((0, 0), np.float32), 0
    image_keys: list[str] = []
    texts: list[str] = []
    vectors = [np.zeros((0, 0), np.float32)]
    for batch in batches_of(file, columns, BATCH, most // 4):
        part = _matrix(batch.column("embedding"))
        if not embeddings.size:
            shape = file.metadata.num_rows, part.shape[1]
            size = 4 * shape[0] * shape[1]
            embeddings = np.empty(shape if size <= most else (0, shape[1]), np.float32)
        if part.shape[1] != embeddings.shape[1]:
            raise ValueError(SEVERAL)
        size += sum(_text_bytes(name, batch.column(name)) for name in columns[1:])
        if size > most:
            raise ValueError(f"more than {most:,} bytes of embeddings and texts")
        cells = {name: batch.column(name).to_pylist() for name in columns[1:]}
        none = [None] * len(part)
        rows = [s or p for s, p in zip(cells.get("sha256", none), cells.get("path", none), strict=True)]
        keys, chosen = _filled(rows, part)
        embeddings[len(image_keys) : len(image_keys) + len(keys)] = chosen
        image_keys += keys
        keys, chosen = _filled(cells.get("text", none), part)
        texts += keys
        vectors.append(chosen)
    return (image_keys, embeddings[: len(image_keys)]), (texts, np.concatenate(vectors[1:] or vectors))


def _text_bytes(name: str, column: Any) -> int:
    """Return the number of bytes of the texts in an Arrow column, each occurrence counted.

    Raises:
        ValueError: if it has another type.
    """
    from pyarrow import compute, types

    coded = types.is_dictionary(column.type)
    texts = column.dictionary if coded else column
    if types.is_null(texts.type):
        return 0
    if not (types.is_string(texts.type) or types.is_large_string(texts.type)):
        raise ValueError(f"a column {name} of type {str(column.type)[:100]}")
    lengths = compute.binary_length(texts)
    return compute.sum(lengths.take(column.indices) if coded else lengths).as_py() or 0


def _matrix(column: Any) -> Embeddings:
    """Return [N, D] float32 from an Arrow column of N lists of D numbers.

    Raises:
        ValueError: if a list or a number is missing, or the lists have several lengths.
    """
    from pyarrow import compute, types

    lists = types.is_list, types.is_large_list, types.is_fixed_size_list
    numbers = types.is_floating, types.is_integer, types.is_decimal
    if not any(kind(column.type) for kind in lists) or not any(kind(column.type.value_type) for kind in numbers):
        raise ValueError(f"embeddings of type {str(column.type)[:100]}")
    values = column.flatten()
    width = len(values) // len(column)
    if (
        column.null_count
        or values.null_count
        or set(compute.unique(compute.list_value_length(column)).to_pylist()) != {width}
    ):
        raise ValueError(SEVERAL)
    return np.asarray(values).astype(np.float32).reshape(len(column), width)


def _filled(keys: Sequence[object], embeddings: Embeddings) -> Rows:
    """Keep only the rows that have a key."""
    rows = [row for row, key in enumerate(keys) if key]
    return [str(keys[row]) for row in rows], embeddings[rows]
