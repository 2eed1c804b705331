"""Ownership of a run folder: one process at a time."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from vl2v.errors import RunError
from vl2v.json_files import write_json
from vl2v.locking import try_file_lock
from vl2v.writing import check_folder
from vl2v_runtime import strict_json

LOCK, OWNER = "run.lock", "owner.json"  # files in the run folder
TRAINING = "vl2v distill"
POLL_SECONDS = 0.1  # between two attempts to lock the folder
PATIENCE = 60.0  # seconds to wait for a short command, or for the workers of a killed process


@dataclass(frozen=True)
class Owner:
    """The process that works in a run folder.

    Attributes:
        command: its command, e.g. ``vl2v distill``.
        since: time of its start, ISO 8601 in UTC.
    """

    command: str
    pid: int
    host: str
    since: str

    @classmethod
    def me(cls, command: str) -> Owner:
        """Return the owner that describes this process."""
        return cls(command, os.getpid(), socket.gethostname(), datetime.now(UTC).isoformat(timespec="seconds"))

    def __str__(self) -> str:
        return f"{self.command}, process {self.pid} on {self.host}, since {self.since}"

    @property
    def ended(self) -> bool:
        """Whether the process has certainly ended. Its workers may hold the lock for some more seconds."""
        if self.host != socket.gethostname() or os.name == "nt":  # on Windows, signal 0 is Ctrl-C
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False


@contextmanager
def owned(folder: Path, command: str, patience: float = PATIENCE) -> Iterator[None]:
    """Lock a run folder until the block or this process ends.

    Args:
        folder: the run folder, created if it is missing.
        command: command of this process, shown to other processes that need the folder.
        patience: seconds to wait for a short command. A training is not waited for.

    Raises:
        RunError: if another process uses the folder.
        AccessError: if a file in it leads out of it; see `vl2v.writing.check_folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_folder(folder)
    end = time.monotonic() + patience
    with ExitStack() as stack:
        while not stack.enter_context(try_file_lock(folder / LOCK)):
            owner = _owner(folder)
            busy = owner is not None and owner.command == TRAINING and not owner.ended
            if busy or time.monotonic() > end:
                raise _in_use(folder, owner)
            time.sleep(POLL_SECONDS)
        write_json(folder / OWNER, asdict(Owner.me(command)))
        try:
            yield
        finally:
            (folder / OWNER).unlink(missing_ok=True)


@contextmanager
def alone_in(folder: Path | None, command: str) -> Iterator[None]:
    """Lock a run folder for a short command that changes a finished run. A folder without a run is not locked."""
    if folder is None or not (folder / "config.yaml").is_file():
        if folder is not None:
            check_folder(folder)
        yield
        return
    with owned(folder, command):
        yield


def _owner(folder: Path) -> Owner | None:
    """Read the owner of a locked folder; None if it has not been written yet."""
    try:
        content = strict_json.read(folder / OWNER)
        return Owner(str(content["command"]), int(content["pid"]), str(content["host"]), str(content["since"]))
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None


def _in_use(folder: Path, owner: Owner | None) -> RunError:
    stop = f", or stop it: kill {owner.pid}" if owner is not None and owner.host == socket.gethostname() else ""
    return RunError(
        f"{folder} is in use.",
        expected="no other process working in it",
        found=str(owner) if owner is not None else "another process",
        next_step=f"wait until it has finished{stop}; then repeat the command",
    )
