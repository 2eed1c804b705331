"""Datasets in Arrow and Parquet with embedded images, as the package `datasets` and the Hugging Face hub have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl2v.data.parquet_images import class_names
from vl2v.data.splits import part_of
from vl2v.data.tables.base import PARQUET, Broken, Row
from vl2v.data.tables.cells import plain_path
from vl2v.errors import DataError, MissingExtraError
from vl2v.parquet_files import batches_of, open_parquet
from vl2v.sources.base import Embedded, Source, unreadable, version_of
from vl2v_runtime import strict_json
from vl2v_runtime.formats import SUFFIXES as IMAGES
from vl2v_runtime.regular import read_text

BATCH = 32  # rows in memory at once
SPLIT, ARROW = "split", ".arrow"
LISTS = ("dataset_dict.json", "state.json")  # in a folder saved by `datasets`, with several splits and with one
WHAT = "Arrow or Parquet, as the package datasets writes it"


@dataclass(frozen=True)
class Part:
    """A file of a dataset.

    Attributes:
        path: path of the file. It is Parquet if it has such a suffix, otherwise Arrow.
        split: name of its split; empty if unknown.
    """

    path: Path
    split: str = ""


class Columnar:
    """A dataset of one or more files, whose rows are numbered consecutively.

    Class indices become class names if `datasets` saved the names. Image columns contain the bytes of files, or paths.

    Args:
        data: the dataset as the user named it.

    Raises:
        DataError: if a file cannot be read, or its columns differ from those of the first file.
        MissingExtraError: if pyarrow is not installed.
    """

    unit = "row"

    def __init__(self, data: str, parts: Sequence[Part], version: str = "") -> None:
        self._data, self._parts = data, tuple(parts)
        self.version = version or version_of(part.path for part in parts)
        for part in parts:
            if not part.path.is_file():
                raise unreadable(part.path, WHAT, "a folder, a pipe or a device")
        schema = schema_of(parts[0].path)
        self._names = class_names(schema.metadata or {})
        self._embedded = embedded(schema)
        splits = {part.split for part in parts}
        self._stated = SPLIT not in schema.names and len(splits) > 1
        self.columns = (*schema.names, *([SPLIT] if self._stated else []))
        candidates = {
            "image": self._embedded[:1],
            "label": list(self._names)[:1],
            "split": [SPLIT] if self._stated else [],
        }
        self.roles = {role: columns[0] for role, columns in candidates.items() if columns}

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """See `vl2v.data.tables.base.Table.rows`."""
        number = 0
        stored_columns = [column for column in columns if not (self._stated and column == SPLIT)]
        for part in self._parts:
            for batch in _batches(part.path, stored_columns):
                values = {column: self._values(column, batch.column(column), part) for column in stored_columns}
                for i in range(batch.num_rows):
                    number += 1
                    cells = tuple(values[c][i] if c in values else part.split for c in columns)
                    yield number, next((cell for cell in cells if isinstance(cell, Broken)), cells)

    def _values(self, column: str, values: Any, part: Part) -> list[object]:
        cells = values.to_pylist()
        if column in self._embedded:
            return [_image(value, part.path.parent) for value in cells]
        names = self._names.get(column)
        if names is None:
            return list(cells)
        return [_class_of(value, names) for value in cells]


def _class_of(value: object, names: Sequence[str]) -> object:
    """Return the name of a class by its number. -1 stands for no class."""
    if value == -1 or not isinstance(value, int):
        return None if value == -1 else value
    if 0 <= value < len(names):
        return names[value]
    problem = f"the class number {value}, but the file names {len(names):,} classes"
    return Broken(problem, "write the dataset again, or leave the row out: --skip-bad", file=True)


def _image(value: object, folder: Path) -> object:
    """Return the image of a cell: its bytes, or its path if it has none."""
    inside = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(inside, bytes):
        return Embedded(inside)
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str):
        return path
    path = plain_path(path)
    return str(folder / path) if path and "://" not in path else path


def embedded(schema: Any) -> list[str]:
    """Return the names of the columns of images, which are binary or structs of bytes and a path."""
    import pyarrow as pa

    def has_images(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return {"bytes", "path"} <= {kind.field(i).name for i in range(kind.num_fields)}
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    return [field.name for field in schema if has_images(field.type)]


def schema_of(path: Path) -> Any:
    """Return the Arrow schema of a file.

    Raises:
        DataError: if the file is neither Parquet nor Arrow.
        MissingExtraError: if pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtraError("Reading Arrow and Parquet", "parquet", "pyarrow") from error
    try:
        if path.suffix.lower() in PARQUET:
            with open_parquet(path) as file:
                return file.schema_arrow
        with pa.memory_map(str(path)) as file:
            return _stream(file).schema
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, WHAT, error) from error


def _stream(file: Any) -> Any:
    """Return a reader of the record batches of an Arrow file. `datasets` writes the stream format."""
    import pyarrow as pa

    try:
        return pa.ipc.open_stream(file)
    except pa.ArrowInvalid:
        file.seek(0)
        return pa.ipc.open_file(file)


def _batches(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    import pyarrow as pa

    try:
        if path.suffix.lower() in PARQUET:
            with open_parquet(path) as file:
                yield from batches_of(file, columns, BATCH)
            return
        with pa.memory_map(str(path)) as mapped:
            reader = _stream(mapped)
            count = getattr(reader, "num_record_batches", None)
            for batch in reader if count is None else map(reader.get_batch, range(count)):
                table = batch.select(list(columns))
                for start in range(0, table.num_rows, BATCH):
                    yield table.slice(start, BATCH)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise unreadable(path, f"{WHAT}, with the columns {', '.join(columns)}", error) from error


def claims(data: str) -> bool:
    """Return whether a path is a folder saved by `datasets`, or Arrow or Parquet files with embedded images."""
    path = Path(data)
    try:
        if (path / LISTS[0]).is_file() or ((path / LISTS[1]).is_file() and _is_saved(path)):
            return True
        files = parquet_files(path) if path.is_dir() else [path] if path.suffix.lower() in (*PARQUET, ARROW) else []
        return bool(files) and files[0].is_file() and bool(embedded(schema_of(files[0])))
    except MissingExtraError:  # `open_datasets` reports it, unless another reader may be able to read the data
        return path.suffix.lower() == ARROW or (path.is_dir() and not any(_images(path)))
    except (OSError, DataError):
        return False


def _images(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.*") if path.suffix.lower() in IMAGES)


def _is_saved(folder: Path) -> bool:
    """Return whether `datasets` wrote the `state.json` of a folder; a run folder of vl2v has such a file, too."""
    return (folder / "dataset_info.json").is_file() or "_data_files" in _json(folder / LISTS[1])


def parquet_files(folder: Path) -> list[Path]:
    """Return the Parquet files in a folder, up to three levels deep, sorted."""
    paths = {path for depth in ("*", "*/*", "*/*/*") for path in folder.glob(f"{depth}.parquet")}
    return sorted(path for path in paths if not any(p.startswith(".") for p in path.relative_to(folder).parts))


def parts_of(files: Sequence[Path], root: Path) -> list[Part]:
    """Return files with the splits that their paths name, e.g. ``data/train-00000-of-00002.parquet``."""
    return [Part(path, _split_of(path.relative_to(root))) for path in files]


def _split_of(path: Path) -> str:
    names = [path.name.partition(".")[0].partition("-")[0], *reversed(path.parts[:-1])]
    return next((name for name in names if part_of(name) is not None), "")


def open_datasets(data: str) -> Columnar:
    """Open a dataset for which `claims` returned true.

    Raises:
        DataError: if it cannot be read.
        MissingExtraError: if pyarrow is not installed.
    """
    path = Path(data)
    if path.is_file():
        return Columnar(data, [Part(path)])
    if (path / LISTS[0]).is_file():
        names = _json(path / LISTS[0]).get("splits")
        if not isinstance(names, list) or not names:
            raise unreadable(path / LISTS[0], "a list of splits", repr(names))
        return Columnar(data, [part for name in names for part in _saved(path / _plain(name, path), str(name))])
    if (path / LISTS[1]).is_file():
        return Columnar(data, _saved(path, ""))
    return Columnar(data, parts_of(parquet_files(path), path))


def _saved(folder: Path, split: str) -> list[Part]:
    """Return the Arrow files of a split that `datasets` saved."""
    entries = _json(folder / LISTS[1]).get("_data_files")
    names = [entry.get("filename") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    if not names:
        raise unreadable(folder / LISTS[1], "a list of data files", repr(entries))
    return [Part(folder / _plain(name, folder), split) for name in names]


def _plain(name: object, folder: Path) -> str:
    """Return a file name unless it is a path, which could lead out of the folder."""
    if not isinstance(name, str) or not name or Path(name).name != name or name in (".", ".."):
        raise unreadable(folder, "names of files in it", f"the name {name!r}")
    return name


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = strict_json.parse(read_text(path))
    except (OSError, ValueError) as error:
        raise unreadable(path, "JSON", error) from error
    return content if isinstance(content, dict) else {}


DATASETS = Source("a dataset of the package datasets (a saved folder, or Parquet)", claims, open_datasets)
