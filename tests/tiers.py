"""The pytest plugin that checks the tiers of the suite; tests/conftest.py registers it.

It measures the CPU time of every test's own call, fixtures apart, prints the 30 most expensive tests, and lists those
without the marker `slow` or `system` that take longer than `LIMIT`. A run fails if one of them exceeds it by more than
the noise of the machine explains. CPU time includes child processes that were waited for. Unlike wall time it hardly
depends on what else the machine does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator

import pytest

LIMIT = 3.0  # seconds of CPU time
NOISE = 1.5  # factor by which the CPU time grows while the other hyperthread of the core is busy
SHOWN = 30
PROPERTY = "cpu_seconds"  # property of a report; xdist sends it from the workers
TIERS = ("slow", "system")

_elsewhere = 0.0  # CPU seconds of processes that are not children of this one


def add_cpu_seconds(seconds: float) -> None:
    """Count the CPU time of a process of the current test that is not a child of this process."""
    global _elsewhere
    _elsewhere += seconds


def cpu_seconds() -> float:
    """Return the CPU time of this process, of its finished children, and of processes counted by `add_cpu_seconds`."""
    ended = os.times()  # on Windows without those of children
    return time.process_time() + ended.children_user + ended.children_system + _elsewhere


class Tiers:
    """The hooks, in the process that runs the tests and in the one that reports them."""

    def __init__(self, limit: float = LIMIT) -> None:
        full = os.environ.get("HYPOTHESIS_PROFILE") == "full"  # many more examples than in `make test`
        self.exempt = (*TIERS, "hypothesis") if full else TIERS
        self.limit = limit
        self.measured: list[tuple[float, str]] = []
        self.too_slow: list[tuple[float, str]] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Measure the call of a test."""
        before = cpu_seconds()
        try:
            return (yield)
        finally:
            item.user_properties.append((PROPERTY, cpu_seconds() - before))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect measurements of this process or of a worker."""
        if report.when != "call":
            return
        seconds = float(str(dict(report.user_properties).get(PROPERTY, 0.0)))
        self.measured.append((seconds, report.nodeid))
        if seconds > self.limit and not any(tier in report.keywords for tier in self.exempt):
            self.too_slow.append((seconds, report.nodeid))

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Fail a run that passed, but not within the limit of the tier."""
        if (
            any(seconds > NOISE * self.limit for seconds, _ in self.too_slow)
            and session.exitstatus == pytest.ExitCode.OK
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return (yield)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the most expensive tests, and the tests that lack a marker."""
        if len(self.measured) > SHOWN:
            terminalreporter.section(f"CPU time: {SHOWN} most expensive of {len(self.measured)} tests")
            for seconds, name in sorted(self.measured, reverse=True)[:SHOWN]:
                terminalreporter.write_line(f"{seconds:7.2f} s  {name}")
        if self.too_slow:
            terminalreporter.section(f"tests over {self.limit:g} s of CPU time without a marker", red=True)
            for seconds, name in sorted(self.too_slow, reverse=True):
                terminalreporter.write_line(f"{seconds:7.2f} s  {name}")
            terminalreporter.write_line("Make them faster, or mark them slow or system: see CONTRIBUTING.md.")
