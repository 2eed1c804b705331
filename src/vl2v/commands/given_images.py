"""The images that a command is given without labels: files, folders, tables, and datasets of other tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl2v.data.tables.base import Broken, empty, is_table, open_table
from vl2v.data.tables.cells import above_of, relative_path, rows_of_texts
from vl2v.data.tables.columns import IMAGE_ONLY, find_columns
from vl2v.data.tables.imported import columns_asked, is_copy, names_of_rows
from vl2v.errors import ConfigError, DataError
from vl2v.locations import StoragePaths
from vl2v.planning.prepare import known_columns
from vl2v.progress import Progress
from vl2v.sources.named import imported
from vl2v.sources.registry import find_source
from vl2v_runtime.formats import COMMON
from vl2v_runtime.formats import SUFFIXES as IMAGES
from vl2v_runtime.inputs import search
from vl2v_runtime.names import shown


@dataclass(frozen=True)
class GivenImage:
    """An image that a command is given.

    Attributes:
        name: the path as the user or the table writes it; empty if the row has none.
        path: path of the file; None if the row of a table cannot be used.
        row: number of the row in its table; None for an image outside of tables.
        table: the table or dataset, as the user writes it; empty for an image outside of tables.
        fault: why the row cannot be used; empty if it can.
    """

    name: str
    path: Path | None
    row: int | None = None
    fault: str = ""
    table: str = ""


def find_images(
    inputs: Sequence[Path],
    image: str | None = None,
    *,
    run_data: Mapping[str, Any] | None = None,
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
) -> tuple[list[GivenImage], list[str]]:
    """List image files, search folders at any depth, and read the rows of tables.

    Args:
        inputs: images, folders, tables, and datasets of other tools.
        image: column of the paths in a table; None takes that of the run, or else recognises it by its name.
        run_data: settings `data` of the run.
        storage: paths of cache and store. Images at addresses and in datasets are written next to the store.
        progress: receives the progress of an import.

    Returns:
        (images in the order of the inputs, sorted within a folder, in the order of the rows within a table;
        notes on skipped files, one per folder).

    Raises:
        DataError: if an input is missing or cannot be read, or if there is no image.
        ConfigError: if a table has no column of images, or a column is named and there is no table.
    """
    entries: list[GivenImage] = []
    notes: list[str] = []
    tables = 0
    for path in inputs:
        images, left_out = search(path) if path.is_dir() else ([], "")
        if not images and path.suffix.lower() not in IMAGES and (is_table(path) or find_source(str(path))):
            entries += _rows(path, image, run_data or {}, storage, progress)
            tables += 1
        elif path.is_dir():
            entries += [GivenImage(str(file), file) for file in images]
            notes += [f"{shown(path)}: {left_out}"] if left_out else []
        elif path.exists():
            entries.append(GivenImage(str(path), path))
        else:
            raise DataError(
                f"{shown(path)} is missing.",
                expected="an image, a folder of images, or a table that lists images",
                found="no such file or folder",
                next_step="check the path",
            )
    if image is not None and not tables:
        raise ConfigError(
            f"--image {shown(image)}: only a table has columns.",
            expected="a table that lists images",
            found=", ".join(map(shown, inputs[:3])),
            next_step="pass a table, or drop --image",
        )
    if not entries:
        what = "; ".join(["no image in the given folders", *notes])
        step = "pass images of these formats, or a folder that contains some"
        raise DataError("There is no image to classify.", expected=", ".join(COMMON), found=what, next_step=step)
    return entries, notes


def _rows(
    data: Path, image: str | None, run_data: Mapping[str, Any], storage: StoragePaths | None, progress: Progress | None
) -> Iterator[GivenImage]:
    """Iterate over the rows of a table, or of a dataset of another tool."""
    column = image if image is not None else known_columns(run_data, str(data))["image"]
    table = imported(data, {**IMAGE_ONLY, "image": column}, storage, progress) or data
    rows, above = open_table(table), above_of(table.parent)
    wanted = columns_asked(table, {**IMAGE_ONLY, "image": column})
    columns = find_columns(rows.columns, wanted, source=data, labelled=False)
    names = names_of_rows(table)  # where an imported table has paths of copies
    if table != data and is_table(data) and find_source(str(data)) is None:
        path_rows = open_table(data).rows([column for _, column in columns])
        names = {number: str(cells[0]) for number, cells in path_rows if not isinstance(cells, Broken)}
    number = 0
    for number, cells in rows_of_texts(rows, columns):
        if isinstance(cells, Broken):
            yield GivenImage(names.get(number, ""), None, number, cells.problem, str(data))
        else:
            path = Path(table.parent, relative_path(cells[0], above))
            name = f"row {number:,}" if is_copy(table, cells[0]) else cells[0]
            yield GivenImage(names.get(number, name), path, number, table=str(data))
    if not number:
        raise empty(data)
