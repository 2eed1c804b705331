"""What Python is asked to open, connect to and run while a stranger's folder is read."""

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
    """What happens in the block that loading a folder must not do, filled in at its end.

    Args:
        allowed: folders and files that may be opened, besides installed packages.
    """
    found: list[str] = []
    events: list[tuple[str, tuple[Any, ...]]] = []
    _listeners.append(events)
    try:
        yield found
    finally:
        _listeners.remove(events)
        places = [*OWN, *(path.resolve() for path in allowed)]
        for event, arguments in events:
            if event != "open":
                found.append(f"{event} {arguments}"[:200])
            elif isinstance(arguments[0], str | bytes | os.PathLike):
                path = Path(os.fsdecode(arguments[0])).resolve()
                if not any(path.is_relative_to(place) for place in places):
                    found.append(f"open {path}")
