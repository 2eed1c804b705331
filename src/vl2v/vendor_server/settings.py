"""Settings of the vendor server."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from vl2v.errors import ConfigError
from vl2v.web.limits import Limits

HOST = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,252})(?::([0-9]{1,5}))?")


@dataclass(frozen=True)
class VendorSettings:
    """Settings of a vendor server.

    Attributes:
        teacher: name of the teacher, as for `vl2v.teacher.registry.open_teacher`.
        db: SQLAlchemy URL of the database with accounts, bills and responses.
        host: address to listen on.
        port: TCP port.
        tls_cert: certificate chain, PEM; with `tls_key`.
        tls_key: private key, PEM.
        image_hosts: hosts from which images may be fetched, ``name`` or ``name:port``; if empty, URLs are rejected.
        wait_ms: milliseconds for which a batch that is not full waits for other clients.
        idempotency_hours: hours for which a response is saved for its `Idempotency-Key`.
        device: device of the teacher; None selects one.
        threads: number of CPU threads of the teacher; None measures the best number at the start.
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
        """Validate the settings.

        Raises:
            ConfigError: for the first fault.
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
