"""Run an application in a server."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from vl2v.web.connections import BoundedProtocol, make_room

KEEP_ALIVE_SECONDS = 75


def quiet_logs(level: int = logging.INFO) -> None:
    """Log to standard error, in one manner, and no URL that a client names."""
    # Forced: a package that logged while the model was loaded has set up the root logger, without a level.
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log the URLs that clients name


def listen(app: ASGIApp, host: str, port: int, tls_cert: str | None = None, tls_key: str | None = None) -> None:
    """Serve until the process is told to stop; requests at work are finished then."""
    BoundedProtocol.most_open = make_room()
    server = uvicorn.Server(server_config(app, host, port, tls_cert, tls_key))
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def server_config(
    app: ASGIApp, host: str, port: int, tls_cert: str | None = None, tls_key: str | None = None
) -> uvicorn.Config:
    """How the services are served; see `BoundedProtocol` for the limits on connections."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        ssl_certfile=tls_cert,
        ssl_keyfile=tls_key,
        http=BoundedProtocol,  # h11, which bounds the size of headers
        log_config=None,
        access_log=False,  # the service logs for itself: no paths, no queries
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=30,
        limit_concurrency=BoundedProtocol.most_open + 1,  # reached only if every connection is worked on
    )
