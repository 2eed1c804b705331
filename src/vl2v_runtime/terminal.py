"""Print text safely, whatever it contains and wherever standard output leads."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

from vl2v_runtime.names import printable

BROKEN_PIPE = 141  # exit code of a program that SIGPIPE terminates
ALLOWED = "\t\n"
BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))  # characters that reorder the text after them

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in ALLOWED} | {
    code: f"\\u{code:04x}" for code in BIDI
}


def clean(text: str) -> str:
    """Escape control characters, so that a terminal displays them instead of interpreting them.

    Tabs and line feeds are unchanged. Other characters that move the cursor, change colours or reorder text, and bytes
    that are not UTF-8, become escapes such as ``\\x1b``.
    """
    return printable(text).translate(_CONTROLS)


def is_unicode(stream: object) -> bool:
    """Return whether a stream can encode every character."""
    return str(getattr(stream, "encoding", "") or "utf-8").lower().replace("-", "").startswith("utf")


def prepare_streams() -> None:
    """Let standard output and error accept any text. Closed standard streams are replaced by `os.devnull`.

    Characters that the encoding of the locale lacks, and invalid bytes of file names, are escaped, e.g. as ``\\xe9``.
    """
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_streams() -> int | None:
    """Flush standard output and error while errors can still be caught, before the interpreter exits.

    Returns:
        None, or `BROKEN_PIPE` if the reader has closed the pipe, which is not an error.

    Raises:
        OSError: if the output cannot be written, e.g. to a full disk.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BrokenPipeError:
        drop_output()
        return BROKEN_PIPE
    except OSError as error:
        drop_output()
        if error.filename is None:
            error.filename = "standard output"
        raise
    return None


def drop_output() -> None:
    """Discard output that cannot be flushed, so that the interpreter exits without an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
