from __future__ import annotations

import io
import json
import time

import pytest
from rich.console import Console

from vl2v.cli.console import JsonLines, LogLines, RichBars


def test_a_log_shows_progress_and_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 40.0, 50.0, 60.0])
    monkeypatch.setattr("vl2v.cli.console.time.monotonic", lambda: next(clock))
    stream = io.StringIO()
    with LogLines(stream).stage("Distill", 4000, done=1000) as advance:
        for _ in range(3):
            advance(500)
    assert stream.getvalue().splitlines() == [
        "Distill: 2,000 of 4,000, about 80 s left",  # 1,000 of 3,000 steps in 40 s
        "Distill: 2,500 of 4,000, 60.0 s",
    ]


def test_scripts_get_one_object_per_line() -> None:
    stream = io.StringIO()
    lines = JsonLines(stream)
    with lines.stage("Align", 3) as advance:
        advance(3)
    lines.note("done")
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [e["event"] for e in events] == ["stage", "end", "note"]
    assert (events[1]["done"], events[1]["total"]) == (3, 3)


def test_bars_show_rate_and_remaining_time() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with RichBars(console).stage("Align", 10) as advance:
        for _ in range(10):
            time.sleep(0.01)
            advance(1)
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "10/10" in output
    assert "/s" in output
