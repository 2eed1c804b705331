"""Text that is safe to print, whatever names and vendors' words it holds, on whatever stands behind standard output."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

from vl2v_runtime.names import printable

BROKEN_PIPE = 141  # the exit code of a program that SIGPIPE ends
KEPT = "\t\n"
BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))  # these reorder what follows them

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in KEPT} | {
    code: f"\\u{code:04x}" for code in BIDI
}


def clean(text: str) -> str:
    """The text with every control character written out, so that a terminal shows it and does not obey it.

    Tabs and line feeds stay. Everything else that moves the cursor, changes colours or reorders text becomes ``\\x1b``
    or the like, and so does a byte of a name that is not UTF-8.
    """
    return printable(text).translate(_CONTROLS)


def is_unicode(stream: object) -> bool:
    """Whether a stream can take every character."""
    return str(getattr(stream, "encoding", "") or "utf-8").lower().replace("-", "").startswith("utf")


def prepare_streams() -> None:
    """Make standard output and error take any text, and exist: one that is closed becomes `os.devnull`.

    A character that the locale's encoding lacks is written out as ``\\xe9``, and so is what is no character of a file
    name at all.
    """
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_streams() -> int | None:
    """Write out what is buffered, before the interpreter does it where no error can be caught.

    Returns:
        None if all was written; `BROKEN_PIPE` if the reader went away, which is no fault.

    Raises:
        OSError: if it cannot be written, e.g. to a full disk.
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
    """Let what is still buffered go nowhere when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
