"""Terminal output: names and messages are never interpreted as markup or control characters."""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from vl2v_runtime.names import printable
from vl2v_runtime.terminal import BROKEN_PIPE, clean, drop_output, is_unicode

__all__ = ["PlainConsole", "clean", "console", "dump_json", "say"]


NARROWEST = 60  # columns; in a narrower window, lines wrap instead of tables being truncated


class PlainConsole(Console):
    """A console that shows text literally: ``[bold]`` is not markup, and control characters are escaped."""

    def render_str(self, text: str, **options: Any) -> Text:
        """See `rich.console.Console.render_str`; it renders every plain string, also the cells of tables."""
        options |= {"markup": False, "emoji": False}
        return super().render_str(clean(text), **options)

    def on_broken_pipe(self) -> None:
        """Exit silently if the reader of the output has closed it."""
        drop_output()
        raise SystemExit(BROKEN_PIPE)


def console(*, stderr: bool = False, **options: Any) -> PlainConsole:
    """Create a console for results on standard output, or for progress on standard error."""
    plain_console = PlainConsole(stderr=stderr, **({"markup": False, "emoji": False, "highlight": False} | options))
    if plain_console.width < NARROWEST and "width" not in options:
        plain_console.width = NARROWEST
    return plain_console


def say(text: str, stream: TextIO | None = None) -> None:
    """Print lines to standard error or another stream, with control characters escaped."""
    print(clean(text), file=stream or sys.stderr, flush=True)


def dump_json(value: object, *, indent: int | None = 2) -> str:
    """Encode JSON for standard output, with Unicode if the terminal can show it, and without control characters."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    if printable(text) != text or not is_unicode(sys.stdout):
        text = json.dumps(value, indent=indent)
    return text.translate({code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)})
