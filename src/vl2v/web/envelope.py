"""Middleware for every request: id, headers, a log line, metrics, and an error response."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Mapping, MutableMapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import Counter, Histogram
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vl2v.web.faults import ApiError, schema

METHODS = ("GET", "POST", "DELETE")


class Envelope:
    """An ASGI application with logs and metrics. Keys, queries and bodies are never logged.

    Args:
        answers: counter of responses by route and status.
        seconds: histogram of seconds from request to response, by route.
        logger: gets a line for each request.
        failed: message to the client if the service fails.
        headers: headers of every response.
    """

    def __init__(
        self,
        app: ASGIApp,
        answers: Counter,
        seconds: Histogram,
        logger: logging.Logger,
        failed: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._app, self._answers, self._seconds, self._logger = app, answers, seconds, logger
        self._failed, self._headers = failed, headers or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["id"], state["headers"] = uuid.uuid4().hex, dict(self._headers)
        started, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = {"x-request-id": state["id"], **state["headers"]}
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in extra.items())]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            status = 499
        except Exception:  # FastAPI has already sent a response 500
            self._logger.exception("request %s failed", state["id"])
            if not status:
                await _last_resort(sending, self._failed)
        self._log(scope, state, status, time.perf_counter() - started)

    def _log(self, scope: Scope, state: MutableMapping[str, Any], status: int, seconds: float) -> None:
        """Log the pattern of the route, and not the path, which is chosen by the client."""
        route = getattr(scope.get("route"), "path", "unknown")
        self._answers.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)
        method = scope["method"] if scope["method"] in METHODS else "other"
        who = state.get("account", "-")
        self._logger.info("%s %s %s %d %.0f ms account=%s", state["id"], method, route, status, 1000 * seconds, who)


def answer_faults(app: FastAPI, failed: str, unknown: str) -> None:
    """Make an application send all errors in the format of `ApiError`.

    Args:
        failed: message to the client if the service fails.
        unknown: message to the client if no route matches.
    """

    async def refuse(_: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError):
            first = error.errors()[0]
            error = schema(f"{first['msg']}.", ".".join(str(part) for part in first["loc"]))
        elif isinstance(error, HTTPException):
            error = ApiError(error.status_code, "not_found", unknown)
        elif not isinstance(error, ApiError):
            error = ApiError(500, "internal_error", failed)
        return JSONResponse(error.body, error.status, error.headers)

    for kind in (ApiError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, refuse)


async def _last_resort(send: Send, failed: str) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    body = json.dumps(ApiError(500, "internal_error", failed).body).encode()
    await send({"type": "http.response.body", "body": body})
