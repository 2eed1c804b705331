"""Progress reporting and warnings, independent of how they are displayed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol

from vl2v.hints import fitting

Advance = Callable[[int], None]


class Vl2vWarning(UserWarning):
    """A condition that users should know about, although the work continues."""


class Progress(Protocol):
    """The interface of progress callbacks; `vl2v.cli.console` implements it for terminals."""

    def stage(self, title: str, total: int, done: int = 0) -> AbstractContextManager[Advance]:
        """Start a stage of `total` steps, of which `done` are finished. The returned function advances it."""
        ...

    def note(self, text: str) -> None:
        """Show one line."""
        ...


class Silent:
    """Progress that is not displayed."""

    @contextmanager
    def stage(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        """See `Progress.stage`."""
        yield lambda steps: None

    def note(self, text: str) -> None:
        """See `Progress.note`."""

    def warn(self, text: str) -> None:
        """See `warn`; issues a Python warning."""
        warnings.warn(text, Vl2vWarning, stacklevel=4)


_of_command: ContextVar[Progress] = ContextVar("_of_command")


def use_for_command(progress: Progress) -> None:
    """Show what has no progress callback of its own by this one, until the current context ends."""
    _of_command.set(progress)


def progress_of_command() -> Progress:
    """Return the progress callback of the current command; a silent one outside of commands."""
    return _of_command.get(Silent())


class Recorder:
    """A progress callback that records warnings, and passes each of them on once."""

    def __init__(self, inner: Progress) -> None:
        self.inner = inner
        self.warnings: list[str] = []

    def stage(self, title: str, total: int, done: int = 0) -> AbstractContextManager[Advance]:
        """See `Progress.stage`."""
        return self.inner.stage(title, total, done)

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        self.inner.note(text)

    def warn(self, text: str) -> None:
        """See `warn`."""
        if text not in self.warnings:
            self.warnings.append(text)
            warn(self.inner, text)


def warn(progress: Progress, text: str) -> None:
    """Show a warning. Unlike a note, no setting hides it.

    Args:
        progress: progress callback. Its `warn` is called if it exists, otherwise its `note`, with the prefix
            ``warning:``.
        text: one line, without ``warning:``.
    """
    text, method = fitting(text), getattr(progress, "warn", None)
    if method is None:
        progress.note(f"warning: {text}")
    else:
        method(text)
