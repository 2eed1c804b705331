"""Run an ASGI application in a server."""

from __future__ import annotations

import logging
import socket
import sys
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from vl2v.errors import ConfigError
from vl2v.web.connections import BoundedProtocol, make_room

KEEP_ALIVE_SECONDS = 75


def quiet_logs() -> None:
    """Log to standard error in one format, without the URLs that clients send."""
    # Forced, because a package that logged while the model was loaded may have configured the root logger.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # httpx logs URLs


def check_port(host: str, port: int) -> None:
    """Find out before the work whether the address can be listened on.

    Raises:
        ConfigError: if not.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: what just closed is free
            one.bind(address)
    except (OSError, ValueError, OverflowError) as error:  # UnicodeError is a ValueError
        raise ConfigError(
            f"The server cannot listen on {host[:100]}:{port}.",
            expected="an address of this machine and a free port",
            found=getattr(error, "strerror", None) or str(error),
            next_step="stop the other server, or choose another port: --port; correct a wrong --host",
        ) from error


def listen(app: ASGIApp, host: str, port: int, tls_cert: str | None = None, tls_key: str | None = None) -> None:
    """Serve an application until the process is stopped; requests in flight are finished."""
    BoundedProtocol.most_open = make_room()
    server = uvicorn.Server(server_config(app, host, port, tls_cert, tls_key))
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def server_config(
    app: ASGIApp, host: str, port: int, tls_cert: str | None = None, tls_key: str | None = None
) -> uvicorn.Config:
    """Return the configuration of uvicorn; see `BoundedProtocol` for the limits on connections."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        ssl_certfile=tls_cert,
        ssl_keyfile=tls_key,
        http=BoundedProtocol,  # based on h11, which limits the size of headers
        log_config=None,
        access_log=False,  # the service has its own log, without paths and queries
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=30,
        limit_concurrency=BoundedProtocol.most_open + 1,  # reached only if all connections are busy
    )
