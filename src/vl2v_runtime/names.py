"""Names of files as people and programs can read them, whatever bytes they are made of."""

from __future__ import annotations

import shlex
import unicodedata
from pathlib import PurePath

_HIDDEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})  # control, format (right-to-left too), separators, stray bytes


def printable(name: str | PurePath) -> str:
    r"""A name in valid UTF-8: a byte that is none, as Python reads it from a file system, becomes ``\xfc``."""
    text = str(name)
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a character pair, as no file system gives it
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shown(name: str | PurePath) -> str:
    r"""A name on one line of a terminal, without characters that move the cursor or turn the text around.

    They become escapes such as ``\n``, ``\x1b`` and ``\u202e``. Characters that join emoji stay.
    """
    text = printable(name)
    if text.isprintable():
        return text
    return "".join(_escaped(c) if unicodedata.category(c) in _HIDDEN and c != "\u200d" else c for c in text)


def has_control(name: str) -> bool:
    """Whether a name has a control character, which neither a class nor a prompt may have."""
    return any(unicodedata.category(char) == "Cc" for char in name)


def quoted(name: str | PurePath) -> str:
    r"""A name as a shell reads it: in quotes where it needs them, ``$'\n'`` for what no terminal shows."""
    text = str(name)
    if printable(text) == text and shown(text) == text:
        return shlex.quote(text)
    data = text.encode("utf-8", "surrogateescape")
    plain = (chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in data)
    return f"$'{''.join(plain)}'"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
