"""API keys: read from the environment or a prompt, stored only in memory, and redacted from all output."""

from __future__ import annotations

import base64
import getpass
import html
import os
import re
import sys
from urllib.parse import urlsplit

from vl2v.errors import TeacherError

SHORTEST = 8  # minimum number of base64 characters; shorter matches occur in ordinary text


class Secret:
    """A key that cannot be printed, formatted or pickled.

    Args:
        value: the key; empty for no key.
    """

    __slots__ = ("_pattern", "_value")

    def __init__(self, value: str = "") -> None:
        self._value = value
        self._pattern = encodings_pattern(value) if value else None

    def reveal(self) -> str:
        """Return the key, for the header of a request."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret(***)" if self._value else "Secret()"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a secret cannot be pickled")

    def redact(self, text: str) -> str:
        """Redact the key, in all encodings, from text for errors, logs and the ledger; see `encodings_pattern`."""
        return self._pattern.sub("***", text) if self._pattern else text


def encodings_pattern(value: str) -> re.Pattern[str]:
    """Compile a pattern that matches a secret, as it is or in an encoding in which a server may repeat it.

    The encodings are percent-encoding of any character, HTML character references, JSON escapes, hexadecimal, and
    base64 in both alphabets, also as a part of a longer text such as ``user:key``.
    """
    data = value.encode()
    patterns = ["".join(map(_character, value)), f"(?i:{data.hex()})"]
    for before in range(3):  # base64 encodes groups of three bytes; the key may begin at any of them
        text = base64.b64encode(bytes(before) + data).decode()
        characters = text[(0, 2, 3)[before] : (before + len(data)) * 8 // 6]  # characters that depend only on the key
        if len(characters) >= SHORTEST:
            patterns.append(
                "".join({"+": "[+-]", "/": "[/_]"}.get(c, re.escape(c)) for c in characters) + "[A-Za-z0-9+/_-]?=*"
            )
    return re.compile("|".join(patterns))


def _character(char: str) -> str:
    """Return a pattern for one character, as it is or escaped."""
    code = ord(char)
    ways = [
        re.escape(char),
        f"(?i:%(?:25)?{code:02x})",
        rf"(?i:\\u00{code:02x})",
        f"&#0*{code};",
        f"(?i:&#x0*{code:x};)",
    ]
    if char in "/\\\"'":
        ways.append(re.escape(f"\\{char}"))
    if (entity := html.escape(char)) != char:
        ways.append(re.escape(entity))
    return f"(?i:{'|'.join(ways)})"  # host names are in lower case


def from_environment(names: tuple[str, ...]) -> Secret:
    """Return the key in the first environment variable that is set; an empty secret if none is.

    Raises:
        TeacherError: if an HTTP header cannot contain the value.
    """
    for name in names:
        if value := os.environ.get(name, "").strip():
            return _usable(value, name)
    return Secret()


def ask_for(names: tuple[str, ...], whose: str) -> Secret:
    """Return the key of a vendor from the environment, or prompt for it on a terminal without echo.

    Args:
        names: environment variables, in order of precedence.
        whose: name of the vendor, for the prompt.

    Raises:
        TeacherError: if there is neither a variable nor a terminal.
    """
    key = from_environment(names)
    if key:
        return key
    if sys.stdin.isatty() and sys.stderr.isatty():
        typed = getpass.getpass(f"key for {whose} (not shown, not saved): ").strip()
        if typed:
            return _usable(typed, "the typed key")
    raise TeacherError(
        f"No key for {whose}.",
        expected=f"the environment variable {' or '.join(names)}",
        found="none",
        next_step=f"export {names[0]}=...; a key is never read from or written to a file",
    )


def unencrypted_key(url: str, names: tuple[str, ...]) -> TeacherError:
    """Return the error for a request that would send a key to another machine over plain HTTP."""
    parts = urlsplit(url)
    port = parts.port or 80
    variables = " and ".join(names) or "the vendor's credentials"
    return TeacherError(
        f"The key would be sent to {parts.hostname} unencrypted.",
        expected="https, or an address of this machine",
        found=f"http://{parts.hostname}:{port}",
        next_step=f"use https; or open a tunnel (ssh -L {port}:127.0.0.1:{port} {parts.hostname}) and use"
        f" http://127.0.0.1:{port}; or, if the server needs no key, unset {variables}",
    )


def _usable(value: str, where: str) -> Secret:
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise TeacherError(
            "A key cannot be sent.",
            expected=f"printable ASCII without spaces in {where}",
            found="other characters",
            next_step="copy the key again",
        )
    return Secret(value)
