"""Image classification exports of Label Studio: JSON, JSON-MIN, CSV and TSV."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from vl2v.data.tables.base import DELIMITED, Broken, Row, empty
from vl2v.data.tables.delimited import Delimited
from vl2v.errors import DataError
from vl2v.sources.base import Source, exports_in, unreadable, version_of
from vl2v.sources.label_studio_files import Uploads
from vl2v_runtime.names import shown

CHOICE = "choice"
TASK, ANNOTATION = "id", "annotation_id"  # columns of JSON-MIN and CSV
CSV_COLUMNS = frozenset({ANNOTATION, "annotator", "lead_time"})  # added by Label Studio
BY_ANNOTATION = CSV_COLUMNS | {"created_at", "updated_at"}  # may differ between the annotations of a task
LOOKED_AT = 100  # tasks with a class from which the columns are taken
CHUNK = 2**16
IMAGE_KEYS = ("image", "img", "picture", "photo", "url", "path", "file")
ONE_CLASS = "choose one class for the image, or leave it out: --skip-bad"
LABEL_IT = "label the image, or leave it out: --skip-bad"
UNLABELLED = ""  # in place of a column: why a task has no class
EXPORT = "a list of tasks, as Label Studio exports it as JSON or JSON-MIN"
OTHER = "export the project as JSON; or write a table (.csv, or .jsonl with an object per line), and pass that"


class LabelStudio:
    """A JSON export with one row per task. The columns are the data of the task and the chosen class.

    Args:
        data: path of the export. Images are searched next to it; see `Uploads`.

    Raises:
        DataError: if the file is not a list of tasks, or the list is empty.
    """

    unit = "row"

    def __init__(self, data: str) -> None:
        self._path = Path(data)
        self.version = version_of([self._path])
        keys: dict[str, None] = {}
        controls: dict[str, None] = {}
        labelled = 0
        for task in tasks(self._path):
            fields, choices = _fields(task), _choices(task)
            keys |= dict.fromkeys(fields if isinstance(fields, dict) else ())
            controls |= dict.fromkeys(choices)
            labelled += bool(choices) or (isinstance(fields, dict) and bool(fields.get(ANNOTATION)))
            if labelled == LOOKED_AT:
                break
        full = keys.pop(UNLABELLED, "") is None
        if not keys:
            raise empty(self._path)
        controls |= dict.fromkeys([CHOICE] if full and not controls else [])
        self._controls = frozenset(controls)
        self.columns = tuple(dict.fromkeys([*keys, *controls]))
        self.roles = roles_of(self.columns)
        if len(controls) == 1:
            self.roles |= {"label": next(iter(controls))}

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """See `vl2v.data.tables.base.Table.rows`."""
        rows = ((number, _fields(task)) for number, task in enumerate(tasks(self._path), 1))
        yield from _rows(rows, columns, self.roles.get("image"), Uploads(self._path.parent), self._controls)


class LabelStudioCsv:
    """A CSV or TSV export: a table with paths of Label Studio.

    Raises:
        DataError: if the file is not a table.
    """

    def __init__(self, data: str) -> None:
        self._table, self._folder = Delimited(Path(data)), Path(data).parent
        self.unit, self.columns = self._table.unit, self._table.columns
        self.version = version_of([Path(data)])
        self.roles = roles_of(self.columns)

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """See `vl2v.data.tables.base.Table.rows`."""
        names = list(dict.fromkeys([*columns, *(name for name in (TASK, ANNOTATION) if name in self.columns)]))
        rows = (
            (number, cells if isinstance(cells, Broken) else dict(zip(names, map(_parsed, cells), strict=True)))
            for number, cells in self._table.rows(names)
        )
        yield from _rows(rows, columns, self.roles.get("image"), Uploads(self._folder))


def tasks(path: Path) -> Iterator[object]:
    """Iterate over the tasks of an export without loading the whole file.

    Raises:
        DataError: if the file is not a JSON list.
    """
    decoder, text, done = json.JSONDecoder(), "", False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        if not (head := file.read(CHUNK).lstrip()).startswith("["):
            raise unreadable(path, EXPORT, _other(head), OTHER)
        file.seek(0)
        text = file.read(CHUNK).lstrip("\ufeff \t\r\n")[1:]
        while True:
            text = text.lstrip(" \t\r\n,")
            if text.startswith("]"):
                return
            try:
                task, end = decoder.raw_decode(text)
            except (ValueError, RecursionError) as error:
                if done:
                    raise unreadable(path, EXPORT, error) from error
            else:
                if done or end < len(text):  # a number at the end of a chunk may continue
                    yield task
                    text = text[end:]
                    continue
            more = file.read(max(CHUNK, len(text)))
            text, done = text + more, not more


def _other(head: str) -> str:
    """Return what a file that is not a list of tasks begins with."""
    keys = ", ".join(re.findall(r'"([A-Za-z_]{1,30})"\s*:', head[:2000])[:5])
    return f"a JSON object that begins with the keys {keys}" if head.startswith("{") and keys else "not a JSON list"


def _rows(
    rows: Iterable[tuple[int, dict[str, Any] | Broken]],
    columns: Sequence[str],
    image: str | None,
    uploads: Uploads,
    controls: frozenset[str] = frozenset(),
) -> Iterator[Row]:
    """Iterate over the tasks of an export. JSON-MIN and CSV have adjacent rows for several annotations of a task."""

    def task(row: tuple[int, dict[str, Any] | Broken]) -> object:
        number, fields = row
        if isinstance(fields, Broken) or ANNOTATION not in fields or not fields.get(TASK):
            return number
        return fields[TASK], fields.get(image or "")

    for _, group in groupby(rows, task):
        (number, first), *more = group
        if isinstance(first, Broken):
            yield number, first
            continue
        fields = _agreed([first, *(other for _, other in more if not isinstance(other, Broken))])
        if image:
            fields |= {image: uploads.local(fields.get(image))}
        values = tuple(fields.get(column) for column in columns)
        bad = next((value for value in values if isinstance(value, Broken)), None)
        if not bad and not all(values):
            unlabelled = Broken("no annotation", LABEL_IT, file=True) if ANNOTATION in fields else None
            bad = fields.get(UNLABELLED) or (unlabelled if not fields.get(ANNOTATION) else None)
            empty_control = next((c for c, v in zip(columns, values, strict=True) if not v and c in controls), "")
            if not bad and empty_control:
                bad = Broken(f"no choice in the control {shown(empty_control)}", LABEL_IT, file=True)
        yield number, bad or values


def _agreed(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the values of a task from the rows of its annotations; a `Broken` where annotators disagree."""
    merged = dict(rows[0])
    for column in dict.fromkeys(column for row in rows[1:] for column in row):
        values = list(dict.fromkeys(row[column] for row in rows if row.get(column) not in (None, "")))
        if values and column not in BY_ANNOTATION:
            broken = next((value for value in values if isinstance(value, Broken)), None)
            merged[column] = broken or (values[0] if len(values) == 1 else _several(sorted(map(str, values))))
    return merged


def _several(choices: Sequence[str]) -> Broken:
    return Broken(f"several choices: {', '.join(choices[:4])}", ONE_CLASS, file=True)


def _fields(task: object) -> dict[str, Any] | Broken:
    """Return the values of a task by column: its data, and the class that was chosen in each control."""
    if not isinstance(task, dict):
        return Broken("a single value instead of a task", "export the project again")
    inner = task.get("data")
    if not isinstance(inner, dict):  # JSON-MIN
        return {key: chosen([value]) if isinstance(value, list | dict) else value for key, value in task.items()}
    plain = {key: value for key, value in inner.items() if not isinstance(value, list | dict)}
    choices = _choices(task)
    nothing = {} if choices else {UNLABELLED: Broken(_without_choice(task), LABEL_IT, file=True)}
    return plain | nothing | {name: chosen(values) for name, values in choices.items()}


def _choices(task: object) -> dict[str, list[object]]:
    """Return the choices in the annotations of a task by the name of their control."""
    choices: dict[str, list[object]] = {}
    for annotation in _annotations(task):
        if not (annotation.get("was_cancelled") or annotation.get("skipped")):
            for result in _mappings(annotation.get("result")):
                if result.get("type", "choices") == "choices":
                    choices.setdefault(str(result.get("from_name", CHOICE)), []).append(result.get("value"))
    return choices


def _annotations(task: object) -> list[dict[str, Any]]:
    return _mappings(task.get("annotations") or task.get("completions")) if isinstance(task, dict) else []


def _mappings(value: object) -> list[dict[str, Any]]:
    """Return the mappings in a list; none if the value is not a list."""
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _without_choice(task: dict[str, Any]) -> str:
    """Return why a task has no class: it has no annotation, or none with choices."""
    annotations = _annotations(task)
    if annotations and all(annotation.get("was_cancelled") or annotation.get("skipped") for annotation in annotations):
        return "skipped by the annotator"
    if not annotations and task.get("predictions"):
        return "no annotation, but a prediction"
    results = [result for annotation in annotations for result in _mappings(annotation.get("result"))]
    kinds = sorted({shown(str(result.get("type")))[:40] for result in results})
    return f"an annotation without choices, but with {', '.join(kinds[:4])}" if kinds else "no annotation"


def chosen(values: Sequence[object]) -> str | Broken | None:
    """Return the class that the annotations of a task agree on; None if there is no choice."""
    choices: list[str] = []
    for value in values:
        inside = value.get("choices") if isinstance(value, dict) else value
        inside = inside if isinstance(inside, list) else [inside]
        choices += [choice for choice in inside if isinstance(choice, str)]
    distinct = sorted({choice for choice in choices if choice})
    if len(distinct) > 1:
        return _several(distinct)
    return distinct[0] if distinct else None


def _parsed(value: object) -> object:
    """Return a value of a CSV export, in which several choices are JSON."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return chosen([json.loads(value)])
        except (ValueError, RecursionError):
            return value
    return value


def roles_of(columns: Sequence[str]) -> dict[str, str]:
    """Return the columns of images and labels of an export by role."""
    image = next((column for key in IMAGE_KEYS for column in columns if column.casefold() == key), "")
    return ({"image": image} if image else {}) | ({"label": CHOICE} if CHOICE in columns else {})


def is_export(file: Path) -> bool:
    """Return whether a file has the columns or the keys that Label Studio adds to the data of the tasks."""
    try:
        if file.suffix.lower() in DELIMITED:
            return len(CSV_COLUMNS & set(Delimited(file).columns)) > 1
        first = next(tasks(file), None) if file.suffix.lower() == ".json" else None
    except (DataError, OSError):
        return False
    return isinstance(first, dict) and (len(CSV_COLUMNS & set(first)) > 1 or isinstance(first.get("data"), dict))


def claims(data: str) -> bool:
    """Return whether a path is a JSON file, a CSV or TSV export, or a folder with an export and its images."""
    path = Path(data)
    if path.is_dir():
        return bool(exports_in(path, is_export))
    return path.is_file() and (path.suffix.lower() == ".json" or is_export(path))


def open_export(data: str) -> LabelStudio | LabelStudioCsv:
    """Open an export for which `claims` returned true.

    Raises:
        DataError: if a folder contains several exports, or an export cannot be read.
    """
    path = Path(data)
    if path.is_dir():
        path, *others = exports_in(path, is_export)
        if others:
            found = f"{1 + len(others)} of them: {', '.join(shown(file.name) for file in (path, *others[:4]))}"
            problem, step = f"{shown(data)} contains several exports of Label Studio.", "pass one of the files"
            raise DataError(problem, expected="one export", found=found, next_step=step)
    return LabelStudioCsv(str(path)) if path.suffix.lower() in DELIMITED else LabelStudio(str(path))


LABEL_STUDIO = Source("an export of Label Studio (JSON, JSON-MIN, CSV, TSV)", claims, open_export)
