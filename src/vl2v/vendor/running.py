"""From settings to a running server."""

from __future__ import annotations

import logging
from pathlib import Path

import uvicorn

from vl2v.errors import ConfigError
from vl2v.teacher.opening import open_teacher
from vl2v.vendor.app import create_app
from vl2v.vendor.database import open_database
from vl2v.vendor.service import Service
from vl2v.vendor.settings import VendorSettings

KEEP_ALIVE_SECONDS = 75
CONNECTIONS = 2048


def serve(settings: VendorSettings) -> None:
    """Sell a teacher until the process is told to stop; requests at work are finished then.

    Raises:
        ConfigError: if the settings cannot work.
        TeacherError: if the teacher cannot be opened.
    """
    settings.check()
    for path in (settings.tls_cert, settings.tls_key):
        if path is not None and not Path(path).is_file():
            raise ConfigError("A TLS file is missing.", expected="a PEM file", found="no file", next_step="check it")
    run(Service(open_teacher(settings.teacher, device=settings.device), open_database(settings.db), settings))


def run(service: Service) -> None:
    """Listen for a service that is ready, until the process is told to stop."""
    settings = service.settings
    # Forced: a package that logged while the model was loaded has set up the root logger, without a level.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log the URLs that clients name
    logging.getLogger("vl2v.vendor").info("%s is for sale", service.card.identity)
    uvicorn.run(
        create_app(service),
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        http="h11",  # bounds the size of headers
        log_config=None,
        access_log=False,  # the service logs for itself: no paths, no queries
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=30,
        limit_concurrency=CONNECTIONS,
    )
