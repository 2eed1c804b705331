"""Tables of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from vl2v.data.tables.base import Broken, Row, empty, encoding_of, with_repeated_keys
from vl2v.data.tables.imported import BROKEN, NAME, is_imported
from vl2v.errors import DataError
from vl2v_runtime.names import shown

LOOKED_AT = 1000  # lines whose keys are the columns
MOST = 2**20  # characters of a line
REMEDY = 'write one object in every line, such as {"path": "a.jpg", "label": "cat"}'


class JsonLines:
    """A file with a JSON object in each line. The columns are the keys; a line need not have all of them.

    Args:
        path: path of the file, in UTF-8.

    Raises:
        DataError: if no line is an object with keys.
    """

    unit = "line"

    def __init__(self, path: Path) -> None:
        self._path, self._encoding = path, encoding_of(path)
        if is_imported(path):
            self.unit = "row"
        first = [value for _, value in islice(self._objects(), LOOKED_AT)]
        if not first:
            raise empty(path)
        broken = [value for value in first if isinstance(value, Broken)]
        if len(broken) == len(first):
            problem = f"{shown(path)} is not a table in JSON lines."
            raise DataError(problem, expected="an object in every line", found=broken[0].problem, next_step=REMEDY)
        hidden = {NAME} if is_imported(path) else set()
        keys = dict.fromkeys(key for value in first if isinstance(value, dict) for key in value)
        self.columns = tuple(key for key in keys if key not in hidden)

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """See `Table.rows`."""
        for number, value in self._objects():
            if isinstance(value, dict):
                cells = tuple(value.get(column) for column in columns)
                yield number, next((cell for cell in cells if isinstance(cell, Broken)), cells)
            else:
                yield number, value

    def _objects(self) -> Iterator[tuple[int, dict[str, object] | Broken]]:
        errors = "replace" if self._encoding == "utf-16" else "surrogateescape"
        with self._path.open(encoding=self._encoding, errors=errors) as file:
            number = 0
            while line := file.readline(MOST):
                number += 1
                if len(line) == MOST:
                    yield number, Broken(f"a line of more than {MOST:,} characters", REMEDY)
                    return
                if line.strip():
                    yield number, _parse(line)


def _parse(line: str) -> dict[str, object] | Broken:
    try:
        value = json.loads(line, object_pairs_hook=with_repeated_keys)
    except (ValueError, RecursionError) as error:
        return Broken(f"not JSON ({' '.join(str(error).split())[:100]})", REMEDY)
    if isinstance(value, dict):
        broken = value.get(BROKEN)
        if not isinstance(broken, list) or len(broken) != 3:
            return value
        return Broken(str(broken[0]), str(broken[1]), file=broken[2] is True, name=str(value.get(NAME) or ""))
    return Broken(f"not an object, but {'a list' if isinstance(value, list) else 'a single value'}", REMEDY)
