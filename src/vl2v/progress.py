"""How a long piece of work tells the user where it stands, without knowing what the user looks at."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]


class Vl2vWarning(UserWarning):
    """Something that a user should know although the work goes on."""


class Progress(Protocol):
    """A place where stages report; `job.console` has the ones people see."""

    def stage(self, title: str, total: int, done: int = 0) -> AbstractContextManager[Advance]:
        """Open a stage of `total` steps, `done` of them behind us; the value advances it by a number of steps."""
        ...

    def note(self, text: str) -> None:
        """Say one line."""
        ...


class Silent:
    """Progress that nobody sees."""

    @contextmanager
    def stage(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        """See `Progress.stage`."""
        yield lambda steps: None

    def note(self, text: str) -> None:
        """See `Progress.note`."""

    def warn(self, text: str) -> None:
        """See `warn`: nobody looks at this progress, so Python's warnings carry it."""
        warnings.warn(text, Vl2vWarning, stacklevel=4)


class Recorder:
    """Progress that passes everything on, and remembers what was warned of.

    Args:
        inner: who is told.
    """

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
    """Say what a user should know although the work goes on; unlike a note, no setting hides it.

    Args:
        progress: its `warn` is called where it has one; other objects are told by `note`, after ``warning:``.
        text: one line, without ``warning:``.
    """
    tell = getattr(progress, "warn", None)
    if tell is None:
        progress.note(f"warning: {text}")
    else:
        tell(text)
