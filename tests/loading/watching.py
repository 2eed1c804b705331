"""Audit events of opening, connecting and running while an untrusted folder is read."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ACTIONS = (
    "socket.connect",
    "socket.getaddrinfo",
    "urllib.Request",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "pickle.find_class",
)
HOME = Path(__file__).resolve().parents[2]
OWN = [
    *(Path(path).resolve() for path in sysconfig.get_paths().values()),
    Path(sys.prefix).resolve(),
    Path(sys.base_prefix).resolve(),
    HOME,
    Path("/proc"),
    Path("/sys"),
    Path("/dev/null"),
]
_listeners: list[list[tuple[str, tuple[Any, ...]]]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _listeners and (event == "open" or event in ACTIONS):
        for listener in _listeners:
            listener.append((event, arguments))


sys.addaudithook(_hook)


@contextmanager
def watched(*allowed: Path) -> Iterator[list[str]]:
    """Record the forbidden events within the block; the list is filled at its end.

    Args:
        allowed: folders and files that may be opened, besides installed packages.
    """
    forbidden: list[str] = []
    events: list[tuple[str, tuple[Any, ...]]] = []
    _listeners.append(events)
    try:
        yield forbidden
    finally:
        _listeners.remove(events)
        allowed_paths = [*OWN, *(path.resolve() for path in allowed)]
        for event, arguments in events:
            if event != "open":
                forbidden.append(f"{event} {arguments}"[:200])
            elif isinstance(arguments[0], str | bytes | os.PathLike):
                path = Path(os.fsdecode(arguments[0])).resolve()
                if not any(path.is_relative_to(base) for base in allowed_paths):
                    forbidden.append(f"open {path}")
