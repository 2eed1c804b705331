"""Output for people and scripts: results, progress bars, log lines, JSON lines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from vl2v.faults import naming
from vl2v.formatting import duration
from vl2v.progress import Advance, Progress, Silent
from vl2v.terminal import clean, console, dump_json, say


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if not speed else f"{speed:,.1f}/s" if speed >= 1 else f"{1 / speed:,.1f} s each", style="dim")


class RichBars:
    """A progress bar per stage with rate and remaining time, on standard error."""

    def __init__(self, to: Console | None = None) -> None:
        self.console = to or console(stderr=True)

    @contextmanager
    def stage(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        """See `vl2v.progress.Progress`."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=self.console) as bars:
            task = bars.add_task(clean(title), total=total, completed=done)
            yield lambda steps: bars.advance(task, steps)

    def note(self, text: str) -> None:
        """See `vl2v.progress.Progress`."""
        self.console.print(text)


class _Lines:
    """Reports the progress of a stage at intervals, as lines of text; subclasses define the lines."""

    every: float
    """Seconds between two lines of a stage."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def _print(self, line: str) -> None:
        say(line, self._stream)

    def _begin(self, title: str, total: int, done: int) -> None: ...

    def _step(self, title: str, total: int, count: int, left: float) -> None: ...

    def _end(self, title: str, total: int, count: int, seconds: float) -> None: ...

    @contextmanager
    def stage(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        """See `vl2v.progress.Progress`."""
        started = last = time.monotonic()
        count = done
        self._begin(title, total, done)

        def advance(steps: int) -> None:
            nonlocal count, last
            count, now = count + steps, time.monotonic()
            if now - last >= self.every and done < count < total:
                last = now
                self._step(title, total, count, (now - started) / (count - done) * (total - count))

        yield advance
        self._end(title, total, count, time.monotonic() - started)


class LogLines(_Lines):
    """Lines for a log: one every half minute during a stage, and one at its end."""

    every = 30.0

    def _step(self, title: str, total: int, count: int, left: float) -> None:
        self._print(f"{title}: {count:,} of {total:,}, about {duration(left, rounded=True)} left")

    def _end(self, title: str, total: int, count: int, seconds: float) -> None:
        self._print(f"{title}: {count:,} of {total:,}, {seconds:,.1f} s")

    def note(self, text: str) -> None:
        """See `vl2v.progress.Progress`."""
        self._print(text)


class Quiet(Silent):
    """No progress and no notes, but warnings on standard error.

    Args:
        as_json: whether warnings are printed as events of `JsonLines`.
    """

    def __init__(self, as_json: bool = False) -> None:
        self._as_json = as_json

    def warn(self, text: str) -> None:
        """See `vl2v.progress.warn`."""
        if self._as_json:
            JsonLines().note(f"warning: {text}")
        else:
            say(f"warning: {text}")


class JsonLines(_Lines):
    """One JSON object per event: start of a stage, progress (at most once per second), end, and notes."""

    every = 1.0

    def _say(self, **event: object) -> None:
        self._print(json.dumps(event))

    def _begin(self, title: str, total: int, done: int) -> None:
        self._say(event="stage", title=title, total=total, done=done)

    def _step(self, title: str, total: int, count: int, left: float) -> None:
        self._say(event="progress", title=title, total=total, done=count, seconds_left=round(left, 1))

    def _end(self, title: str, total: int, count: int, seconds: float) -> None:
        self._say(event="end", title=title, total=total, done=count, seconds=round(seconds, 3))

    def note(self, text: str) -> None:
        """See `vl2v.progress.Progress`."""
        self._say(event="note", text=text)


def for_people() -> Progress:
    """Create progress bars on a terminal, and lines elsewhere."""
    to = console(stderr=True)
    return RichBars(to) if to.is_terminal else LogLines()


OUTPUT = Path("standard output")


def show(result: RenderableType | dict[str, Any] | list[Any]) -> None:
    """Print a table, or JSON if it is plain values, on standard output."""
    with naming(OUTPUT):
        if isinstance(result, dict | list):
            print(dump_json(result))
        else:
            console(soft_wrap=True).print(result)
