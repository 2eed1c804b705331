"""What can be set on a service, with its defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

from vl2v.errors import ConfigError

MB = 1_000_000


@dataclass(frozen=True)
class Limits:
    """How much is taken from a client; each is checked before the work it bounds.

    Attributes:
        inputs: images and texts of one request.
        body_bytes: one request.
        image_bytes: one image file.
        pixels: one image; decoding takes up to about 30 bytes a pixel, one image at a time.
        text_characters: one text.
        held_bytes: all requests that are being read or worked on; beyond it new ones get 503.
        queue: images and texts that wait or are being embedded, over all clients; beyond it 503.
        body_seconds: how long a request may take to arrive.
        link_seconds: how long all the images of a request that are named by URL may take to arrive.
    """

    inputs: int = 64
    body_bytes: int = 64 * MB
    image_bytes: int = 10 * MB
    pixels: int = 20_000_000
    text_characters: int = 4000
    held_bytes: int = 512 * MB
    queue: int = 1024
    body_seconds: float = 60.0
    link_seconds: float = 10.0


@dataclass(frozen=True)
class VendorSettings:
    """A service.

    Attributes:
        teacher: what is sold, as `vl2v.teacher.opening.open_teacher` takes it.
        db: SQLAlchemy URL of accounts, bills and answers.
        host: address to listen on.
        port: TCP port.
        tls_cert: certificate chain, PEM; with `tls_key`.
        tls_key: private key, PEM.
        image_hosts: hosts that images may be fetched from, ``name`` or ``name:port``; none means no URL is taken.
        wait_ms: how long a batch that is not full waits for other clients.
        idempotency_hours: how long an answer is kept for its `Idempotency-Key`.
        device: where the teacher runs; None chooses.
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
    limits: Limits = field(default_factory=Limits)

    def check(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            ConfigError: with the first fault.
        """
        limits = self.limits
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError(
                "TLS needs two files.",
                expected="--tls-cert with --tls-key, or neither behind a proxy",
                found="one of them",
                next_step="name the other one too",
            )
        if limits.queue < limits.inputs or limits.held_bytes < limits.body_bytes:
            raise ConfigError(
                "One request would not fit into the queue.",
                expected="queue >= inputs of a request, and bytes held >= bytes of a request",
                found=f"{limits.queue} and {limits.inputs}, {limits.held_bytes} and {limits.body_bytes}",
                next_step="raise --queue or lower --max-inputs or --max-body-mb",
            )
