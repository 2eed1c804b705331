"""What people and scripts see of a run: a bar with rate and time left, nothing, or a line of JSON per event."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from vl2v.progress import Advance


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if not speed else f"{speed:,.1f}/s" if speed >= 1 else f"{1 / speed:,.1f} s each", style="dim")


class RichBars:
    """A bar per stage, on standard error; where that is no terminal, a line at each stage's end."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.console.soft_wrap = not self.console.is_terminal  # a log's lines stay whole

    @contextmanager
    def stage(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        """See `vl2v.progress.Progress`."""
        if not self.console.is_terminal:
            started, count = time.monotonic(), done

            def line(steps: int) -> None:
                nonlocal count
                count += steps

            yield line
            self.console.print(f"{title}: {count} of {total}, {time.monotonic() - started:.1f} s")
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        with RichProgress(*columns, console=self.console) as bars:
            task = bars.add_task(title, total=total, completed=done)
            yield lambda steps: bars.advance(task, steps)

    def note(self, text: str) -> None:
        """See `vl2v.progress.Progress`."""
        self.console.print(text)


class JsonLines:
    """One JSON object per event: a stage's beginning, at most one advance a second, its end, and notes."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def _say(self, **event: object) -> None:
        print(json.dumps(event), file=self._stream, flush=True)

    @contextmanager
    def stage(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        """See `vl2v.progress.Progress`."""
        started = said = time.monotonic()
        count = done
        self._say(event="stage", title=title, total=total, done=done)

        def advance(steps: int) -> None:
            nonlocal count, said
            count += steps
            if time.monotonic() - said >= 1:
                said = time.monotonic()
                self._say(event="progress", title=title, total=total, done=count)

        yield advance
        self._say(event="end", title=title, total=total, done=count, seconds=round(time.monotonic() - started, 3))

    def note(self, text: str) -> None:
        """See `vl2v.progress.Progress`."""
        self._say(event="note", text=text)
