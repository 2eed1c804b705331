"""Represent file names in messages and output, whatever bytes they contain."""

from __future__ import annotations

import re
import shlex
import unicodedata
from pathlib import PurePath

_HIDDEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})  # control, format (right-to-left too), separators, stray bytes
_ADDRESS = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+:)/(?=[^/])")  # a drive of Windows has one letter
_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?")


def printable(name: str | PurePath) -> str:
    r"""Return a name in valid UTF-8. Invalid bytes of a file name become escapes such as ``\xfc``."""
    text = str(name)
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair, which does not occur in file names
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shown(name: str | PurePath) -> str:
    r"""Return a name on one line, without characters that move the cursor or change the direction of text.

    They become escapes such as ``\n``, ``\x1b`` and ``\u202e``. Characters that join emoji are unchanged. An address in
    place of a path has both slashes again, of which `pathlib` drops one.
    """
    text = printable(name)
    if isinstance(name, PurePath):
        text = _ADDRESS.sub(r"\1//", text)
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _HIDDEN and c != "\u200d" else c for c in text
    )


def cell(text: str) -> str:
    """Return a text for a cell of a CSV file. An apostrophe precedes what a spreadsheet would take as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) and not _NUMBER.fullmatch(text) else text


def shortened(text: str, length: int) -> str:
    """Return a text of at most `length` characters; a longer text has an ellipsis in the middle."""
    keep = length - 1
    return text if len(text) <= length else text[: keep - keep // 3] + "…" + text[-(keep // 3) :]


def has_control(name: str) -> bool:
    """Return whether a name contains a control character, which classes and prompts must not contain."""
    return any(unicodedata.category(char) == "Cc" for char in name)


def quoted(name: str | PurePath) -> str:
    r"""Quote a name for a shell if necessary. Characters that cannot be displayed become escapes: ``$'\n'``."""
    text = str(name)
    if printable(text) == text and shown(text) == text:
        return shlex.quote(text)
    data = text.encode("utf-8", "surrogateescape")
    plain = (chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in data)
    return f"$'{''.join(plain)}'"
