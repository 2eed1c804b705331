"""Ctrl-C and SIGTERM: recorded while something must be finished, and acted upon afterwards."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_also_requested: ContextVar[Callable[[], bool]] = ContextVar("_also_requested", default=lambda: False)


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Within the block, record Ctrl-C and SIGTERM instead of interrupting. A second Ctrl-C interrupts.

    Yields:
        A function that returns whether to stop.
    """
    also = _also_requested.get()
    with _recorded(insist=True) as requested:
        yield lambda: requested.is_set() or also()


@contextmanager
def stop_when(requested: Callable[[], bool]) -> Iterator[None]:
    """Within the block, a run also stops if `requested` returns true. It is called after every step."""
    token = _also_requested.set(requested)
    try:
        yield
    finally:
        _also_requested.reset(token)


@contextmanager
def deferred_interrupts(*, insist: bool = True) -> Iterator[Callable[[], None]]:
    """Within the block, Ctrl-C and SIGTERM take effect only when the yielded function is called, and at the end.

    Args:
        insist: whether a second Ctrl-C interrupts at once.

    Yields:
        A function that raises KeyboardInterrupt if the user asked to stop.
    """

    def check() -> None:
        if requested.is_set():
            requested.clear()
            raise KeyboardInterrupt

    with _recorded(insist) as requested:
        yield check
    check()


@contextmanager
def _recorded(insist: bool) -> Iterator[threading.Event]:
    """Record Ctrl-C and SIGTERM in an event. Signals reach the main thread only; in other threads nothing changes."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return

    def handle(number: int, _: object) -> None:
        if insist and requested.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        requested.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
