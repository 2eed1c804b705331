"""Images in Parquet files of the Hugging Face hub: columns of bytes, class and domain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl2v.errors import DataError, MissingExtraError
from vl2v.parquet_files import batches_of, open_parquet

BATCH = 32  # rows decoded at once
LABELS = ("label", "labels", "class", "category")
LAYOUT = "columns image (bytes, path), label, domain"


@dataclass(frozen=True)
class Row:
    """One image of a Parquet file.

    Attributes:
        domain: domain as in the file; empty without such a column.
        path: name of the image; may be empty.
    """

    domain: str
    label: str
    path: str
    data: bytes


def rows(path: Path) -> Iterator[Row]:
    """Read a file row by row. At most about one row group is in memory (100 to 1000 images in files of the hub).

    Numbers in `label` and `domain` are converted to names with the class names in the schema's metadata, as `datasets`
    writes them.

    Raises:
        DataError: if the file is damaged, lacks a column, or has numbers without names.
        MissingExtraError: if pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowException
    except ImportError as error:
        raise MissingExtraError("Reading Parquet", "parquet", "pyarrow") from error
    try:
        with open_parquet(path) as file:
            yield from _rows(path, file)
    except ArrowException as error:
        found = " ".join(str(error).split())[:200]
        expected, step = f"Parquet with {LAYOUT}", "download it again, or choose another source with --from"
        raise DataError(f"{path} cannot be read.", expected=expected, found=found, next_step=step) from error


def _rows(path: Path, file: Any) -> Iterator[Row]:
    schema = file.schema_arrow
    label = next((name for name in LABELS if name in schema.names), None)
    if "image" not in schema.names or label is None:
        found = ", ".join(schema.names)
        raise DataError(
            f"{path} lacks a column.", expected=LAYOUT, found=found, next_step="choose another source with --from"
        )
    names = class_names(schema.metadata or {})
    columns = ["image", label, *(name for name in ("domain", "image_path") if name in schema.names)]
    label_of, domain_of = _namer(path, label, names), _namer(path, "domain", names)
    for batch in batches_of(file, columns, BATCH):
        for row in batch.to_pylist():
            image = row["image"] if isinstance(row["image"], dict) else {"bytes": row["image"]}
            data = image.get("bytes")
            if not isinstance(data, bytes):
                raise DataError(
                    f"{path} contains no images.", expected="an image file's bytes in column image.bytes",
                    found="a row without bytes, with only a path or a URL",
                    next_step="choose another source with --from",
                )  # fmt: skip
            name = row.get("image_path") or image.get("path") or ""
            domain = "" if row.get("domain") is None else domain_of(row["domain"])
            yield Row(domain, label_of(row[label]), str(name), data)


def class_names(metadata: dict[bytes, bytes]) -> dict[str, Sequence[str]]:
    """Return the names of every ClassLabel column in the metadata that `datasets` writes."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _namer(path: Path, column: str, names: dict[str, Sequence[str]]) -> Callable[[object], str]:
    label_names = names.get(column, ())

    def name(value: object) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, int) and 0 <= value < len(label_names):
            return label_names[value]
        raise DataError(
            f"{path} does not define {column} {value}.",
            expected="names as text, or class names in the schema metadata of the package datasets",
            found=f"{len(label_names)} names" if label_names else "numbers without names",
            next_step="choose another source with --from",
        )

    return name
