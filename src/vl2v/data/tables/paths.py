"""Paths of images as tables and exports write them, also those from Windows or macOS."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

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
