"""Check the cells of a table: texts, and paths of images, also those from Windows or macOS."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from vl2v.data.splits import part_of
from vl2v.data.tables.base import Broken, Table
from vl2v_runtime.names import printable, shown

PLAIN = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)*", re.ASCII).fullmatch  # a relative path that needs no change
FILE_URI = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)
FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")  # macOS decomposes accented letters in file names


def plain_path(text: str) -> str:
    """Return a path without surrounding blanks. The address of a file (``file:///a%20b.jpg``) becomes its path."""
    text = text.strip()
    uri = FILE_URI.match(text)
    return unquote(text[uri.end() :]) if uri else text


def existing_path(path: str) -> str:
    """Return the spelling under which a file exists on this machine, or the path unchanged if it does not exist.

    Backslashes of Windows are tried as slashes, and accented letters in both Unicode forms.

    Args:
        path: absolute, or relative to the current folder.
    """
    if ("\\" not in path and path.isascii()) or os.path.lexists(path):
        return path
    slashed = path.replace("\\", "/")
    forms = [] if path.isascii() else [unicodedata.normalize(form, slashed) for form in FORMS]
    return next((candidate for candidate in (slashed, *forms) if os.path.lexists(candidate)), path)


def above_of(folder: Path) -> str:
    """Return the prefix of absolute paths below a folder: its path with slashes, and a slash at the end."""
    return os.path.abspath(folder).replace(os.sep, "/").rstrip("/") + "/"  # noqa: PTH100 - links stay


def relative_path(path: str, above: str) -> str:
    """Return a path relative to a folder if it lies below it, as a scan of the folder would write it.

    Args:
        path: absolute or relative to the folder; see `existing_path` for paths from other systems.
        above: prefix of absolute paths below the folder; see `above_of`.
    """
    if PLAIN(path):
        return path
    path = posixpath.normpath(path.replace(os.sep, "/"))
    if "\\" in path or not path.isascii():
        path = posixpath.normpath(existing_path(posixpath.join(above, path)))
    return path.removeprefix(above) if path.startswith(above) else path


NOT_UTF8 = 'save the table in UTF-8 (Excel calls it "CSV UTF-8")'
MISSING = frozenset({"NAType", "NaTType", "NoneType"})  # of pandas and Python; pandas.NA cannot be compared
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def rows_of_texts(table: Table, columns: Sequence[tuple[str, str]]) -> Iterator[tuple[int, list[str] | Broken]]:
    """Iterate over the rows of a table: their numbers, and the texts of some columns or why they cannot be used."""
    for number, cells in table.rows([column for _, column in columns]):
        yield number, cells if isinstance(cells, Broken) else _texts(cells, columns)


def _texts(cells: tuple[object, ...], columns: Sequence[tuple[str, str]]) -> list[str] | Broken:
    """Return the texts of a row, or why one of them is missing or cannot be used."""
    texts = []
    for (role, column), value in zip(columns, cells, strict=True):
        if role == "image":
            text = value if isinstance(value, str) and PLAIN(value) else _usable(role, column, value)
        else:  # a table repeats these values
            text = _remembered(role, column, value) if isinstance(value, str) else _usable(role, column, value)
        if isinstance(text, Broken):
            return text
        texts.append(text)
    return texts


def _usable(role: str, column: str, value: object) -> str | Broken:
    """Return the text of a cell with single spaces, or the unchanged path of an image."""
    text = value.strip() if isinstance(value, str) else _text(value)
    text = plain_path(text) if text and role == "image" else text
    if text is None:
        kind = "an image's bytes" if isinstance(value, bytes | dict) else f"a {type(value).__name__}"
        content = "the path of its file" if role == "image" else f"its {role}"
        problem, remedy = kind, f"write {content} as a text"
    elif not text:
        problem, remedy = f"no {role}", "fill it in, or remove the row"
    elif not text.isascii() and printable(text) != text:
        problem, remedy = "a text that is not UTF-8", NOT_UTF8
    elif role == "image":
        if not ADDRESS.match(text) and "\0" not in text:
            return text
        problem = "an address in place of a path" if ADDRESS.match(text) else "a NUL character"
        remedy = "give the path of the file, and download it first if necessary"
    elif role == "split" and part_of(text) is None:
        problem, remedy = "a split that is not train, validation or test", "write one of them"
    else:
        text = " ".join(text.split())
        if text.isprintable():
            return text
        problem, remedy = f"a {role} that cannot be shown", "write it in letters"
    return Broken(f"{problem} in the column {shown(column)}", remedy)


_remembered = lru_cache(maxsize=4096)(_usable)


def _text(value: object) -> str | None:
    """Convert a value to text: empty if it is missing, None if it is not text."""
    if is_missing(value):
        return ""
    return None if isinstance(value, bytes | dict | list | tuple) else str(value).strip()


def is_missing(value: object) -> bool:
    """Return whether a cell has no value: None, NaN of any type (also the signalling NaN of `decimal`), NA, or NaT."""
    if type(value).__name__ in MISSING:
        return True
    try:
        return bool(value != value)
    except ArithmeticError:  # of a signalling NaN
        return True
