"""Settings of a served student."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from vl2v.web.limits import Limits


@dataclass(frozen=True)
class ServeSettings:
    """A service.

    Attributes:
        run: a run's folder, or an exported file.
        host: address to listen on.
        port: TCP port.
        int8: whether the quantised file is served.
        threads: of the network; None measures before the first request.
        edits: whether classes may be changed; None allows it where only this machine can ask.
        budget: the most that all edits may cost together; None leaves it to each.
        gallery: whether training images are shown.
        limits: see `Limits`.
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
