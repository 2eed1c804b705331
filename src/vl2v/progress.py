"""How a long piece of work tells the user where it stands, without knowing what the user looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]


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
