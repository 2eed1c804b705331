"""Start the vendor server."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from vl2v.errors import ConfigError
from vl2v.teacher.purchase.thread_count import serving_threads
from vl2v.teacher.registry import open_teacher
from vl2v.vendor_server.app import create_app
from vl2v.vendor_server.database import open_database
from vl2v.vendor_server.service import Service
from vl2v.vendor_server.settings import VendorSettings
from vl2v.web.running import check_port, listen, quiet_logs


def serve(settings: VendorSettings) -> None:
    """Run the vendor server until the process is stopped; requests in flight are finished.

    Raises:
        ConfigError: if the settings are invalid.
        TeacherError: if the teacher cannot be opened.
    """
    settings.check()
    for path in (settings.tls_cert, settings.tls_key):
        if path is not None and not Path(path).is_file():
            raise ConfigError(
                f"{path} is missing.",
                expected="a PEM file",
                found="no file",
                next_step="correct --tls-cert or --tls-key",
            )
    check_port(settings.host, settings.port)
    teacher, database = open_teacher(settings.teacher, device=settings.device), open_database(settings.db)
    if settings.threads is None:
        settings = replace(settings, threads=serving_threads(teacher))
    run(Service(teacher, database, settings))


def run(service: Service) -> None:
    """Serve an existing service until the process is stopped."""
    settings = service.settings
    quiet_logs()
    logging.getLogger("vl2v.vendor_server").info("serving %s", service.card.identity)
    listen(create_app(service), settings.host, settings.port, settings.tls_cert, settings.tls_key)
