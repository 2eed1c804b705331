"""Settings of a served student."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from vl2v.web.limits import Limits


@dataclass(frozen=True)
class ServeSettings:
    """Settings of a served student.

    Attributes:
        run: path of a run folder or an exported file.
        host: address to listen on.
        port: TCP port.
        int8: whether the quantised file is served.
        threads: number of threads of the network; None measures the best number at the start.
        edits: whether classes may be changed; None allows it if the server listens only on this machine.
        budget: maximum cost of all edits together; None for no limit in addition to that of each edit.
    """

    run: Path
    host: str = "127.0.0.1"
    port: int = 8000
    int8: bool = False
    threads: int | None = None
    edits: bool | None = None
    budget: Decimal | None = None
    gallery: bool = True
    limits: Limits = field(default_factory=Limits)
