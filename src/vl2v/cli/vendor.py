"""`vl2v vendor ...`: serve a model as a vendor. Heavy imports happen when a command runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from vl2v.cli import vendor_keys
from vl2v.cli.common import group, make_limits, need_packages, within
from vl2v.cli.vendor_keys import DEFAULT_DB, Db


def _env(name: str, text: str, *limits: float) -> Any:
    return typer.Option(envvar=f"VL2V_VENDOR_{name}", **(within(text, *limits) if limits else {"help": text}))


def serve(
    teacher: Annotated[
        str, _env("TEACHER", "Model to serve: open_clip:<model>/<tag or file>, file:<path>, offline: or conse:.")
    ],
    host: Annotated[str, _env("HOST", "Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, _env("PORT", "TCP port.", 1, 65535)] = 8080,
    db: Db = DEFAULT_DB,
    tls_cert: Annotated[str | None, _env("TLS_CERT", "Certificate chain, PEM; not needed behind a proxy.")] = None,
    tls_key: Annotated[str | None, _env("TLS_KEY", "Private key, PEM.")] = None,
    device: Annotated[str | None, _env("DEVICE", "Device of the model (default: chosen automatically).")] = None,
    threads: Annotated[int | None, _env("THREADS", "CPU threads (default: measured at the start).", 1, 1024)] = None,
    allow_image_host: Annotated[
        list[str] | None,
        _env("IMAGE_HOSTS", "Host that image URLs may refer to (with :port unless it is the default); repeatable."),
    ] = None,
    max_inputs: Annotated[int, _env("MAX_INPUTS", "Images per request.", 1)] = 64,
    max_texts: Annotated[int, _env("MAX_TEXTS", "Texts per request.", 1)] = 2048,
    max_body_mb: Annotated[int, _env("MAX_BODY_MB", "Megabytes per request.", 1, 100_000)] = 64,
    max_image_mb: Annotated[int, _env("MAX_IMAGE_MB", "Megabytes per image file.", 1, 2000)] = 10,
    max_megapixels: Annotated[int, _env("MAX_MEGAPIXELS", "Megapixels per image.", 1, 178)] = 20,
    queue: Annotated[int, _env("QUEUE", "Maximum number of queued inputs of all clients.", 1)] = 4096,
    wait_ms: Annotated[float, _env("WAIT_MS", "Milliseconds that a batch waits for other clients.", 0, 60_000)] = 2.0,
    idempotency_hours: Annotated[
        float, _env("IDEMPOTENCY_HOURS", "Hours that responses are stored for retries.", 0, 8760)
    ] = 24.0,
) -> None:
    """Serve a model as a vendor that bills per query."""
    need_packages("The vendor service", "vendor", "fastapi", "httpx", "prometheus_client", "sqlalchemy", "uvicorn")
    from vl2v.vendor_server.running import serve as run
    from vl2v.vendor_server.settings import VendorSettings

    limits = replace(make_limits(max_inputs, max_body_mb, max_image_mb, max_megapixels), queue=queue, texts=max_texts)
    run(
        VendorSettings(
            teacher=teacher,
            db=db,
            host=host,
            port=port,
            tls_cert=tls_cert,
            tls_key=tls_key,
            image_hosts=tuple(allow_image_host or ()),
            wait_ms=wait_ms,
            idempotency_hours=idempotency_hours,
            device=device,
            threads=threads,
            limits=limits,
        )
    )


COMMANDS = group("vendor", "Serve a model as a vendor that bills per query (extra: vendor).", serve=serve)
COMMANDS.add_typer(vendor_keys.COMMANDS)
