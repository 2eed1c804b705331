"""A process that loads the tiny teacher once and forks a server for each line of its input.

Starting a server from scratch takes seconds of imports, too long for a test that kills twenty servers.
Lines: JSON {"settings": .., "limits": .., "log": file, "die": moment or ""}. Answers: the server's process id.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from sqlalchemy import Connection

from vl2v.teacher.registry import open_teacher
from vl2v.vendor_server.database import open_database
from vl2v.vendor_server.meter import Meter, Reservation
from vl2v.vendor_server.running import run
from vl2v.vendor_server.service import Service
from vl2v.vendor_server.settings import VendorSettings
from vl2v.web.limits import Limits


def become_server(order: dict[str, Any], teacher: Any) -> None:
    """Serve in this process until it is killed."""
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if order["die"]:
        die_at(order["die"])
    settings = VendorSettings(**{**order["settings"], "limits": Limits(**order["limits"])})
    run(Service(teacher, open_database(settings.db), settings))


def die_at(moment: str) -> None:
    """Make the first bill kill this process, in the middle of the transaction or right after it."""
    settle, bill = Meter.settle, Meter._bill

    def settle_and_die(meter: Meter, reservation: Reservation, body: bytes) -> bytes:
        settle(meter, reservation, body)
        os.kill(os.getpid(), signal.SIGKILL)
        return body

    def bill_and_die(meter: Meter, database: Connection, reservation: Reservation) -> None:
        bill(meter, database, reservation)
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "after commit":
        mock.patch.object(Meter, "settle", settle_and_die).start()
    else:
        mock.patch.object(Meter, "_bill", bill_and_die).start()


def main() -> None:
    """Load, then fork on demand."""
    import open_clip

    config, weights = sys.argv[1:]
    torch.set_num_threads(1)
    open_clip.add_model_config(Path(config))
    teacher = open_teacher(f"open_clip:{Path(config).stem}/{weights}", device="cpu")
    teacher.describe()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                become_server(json.loads(line), teacher)
            finally:
                os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
