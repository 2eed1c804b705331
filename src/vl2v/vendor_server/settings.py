"""Settings of the vendor server."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from vl2v.errors import ConfigError
from vl2v.web.limits import Limits

HOST = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,252})(?::([0-9]{1,5}))?")


@dataclass(frozen=True)
class VendorSettings:
    """A service.

    Attributes:
        teacher: what is sold, as `vl2v.teacher.registry.open_teacher` takes it.
        db: SQLAlchemy URL of accounts, bills and answers.
        host: address to listen on.
        port: TCP port.
        tls_cert: certificate chain, PEM; with `tls_key`.
        tls_key: private key, PEM.
        image_hosts: hosts that images may be fetched from, ``name`` or ``name:port``; none means no URL is taken.
        wait_ms: how long a batch that is not full waits for other clients.
        idempotency_hours: how long an answer is kept for its `Idempotency-Key`.
        device: where the teacher runs; None chooses.
        threads: CPU threads of the teacher; None measures before the first request.
        limits: see `Limits`.
    """

    teacher: str
    db: str = "sqlite:///vl2v-vendor.sqlite"
    host: str = "127.0.0.1"
    port: int = 8080
    tls_cert: str | None = None
    tls_key: str | None = None
    image_hosts: tuple[str, ...] = ()
    wait_ms: float = 2.0
    idempotency_hours: float = 24.0
    device: str | None = None
    threads: int | None = None
    limits: Limits = field(default_factory=Limits)

    def check(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            ConfigError: with the first fault.
        """
        limits = self.limits
        for host in self.image_hosts:
            match = HOST.fullmatch(host)
            if match is None or int(match[2] or 1) > 65535:
                raise ConfigError(
                    "The host of images is not valid.",
                    expected="a name such as images.example.com, with :port if it is not the usual one",
                    found=host[:80],
                    next_step="correct --allow-image-host",
                )
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError(
                "TLS needs two files.",
                expected="--tls-cert with --tls-key, or neither behind a proxy",
                found="one of them",
                next_step="set the other one too",
            )
        if limits.queue < limits.inputs or limits.held_bytes < limits.body_bytes:
            raise ConfigError(
                "One request would not fit into the queue.",
                expected="queue >= inputs per request, and bytes in memory >= bytes per request",
                found=f"{limits.queue} and {limits.inputs}, {limits.held_bytes} and {limits.body_bytes}",
                next_step="raise --queue or lower --max-inputs or --max-body-mb",
            )
