"""The HTTP side of the service: routes, bodies, headers, and what is logged (never a key, a query or a body)."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vl2v.vendor.accounts import Account
from vl2v.vendor.faults import ApiError, too_large
from vl2v.vendor.money import written
from vl2v.vendor.service import Service

logger = logging.getLogger("vl2v.vendor")
DRAIN_SECONDS = 10
IDLE_SECONDS = 1


def create_app(service: Service) -> ASGIApp:
    """The service as an ASGI application, for uvicorn."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.add_exception_handler(ApiError, _refuse)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(Exception, _refuse)
    _add_routes(app, service)
    return Envelope(app, service)


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        body = Body(service, request)
        try:
            account = await _account(service, request)
            service.rates.take(account, request.state.headers)
            content = await body.read()
            key = request.headers.get("idempotency-key")
            reply = await service.embed(account, request.state.id, content, key)
        except ApiError:
            await body.drain()
            raise
        finally:
            body.release()
        headers = {"idempotent-replayed": "true"} if reply.replayed else None
        return Response(reply.body, media_type="application/json", headers=headers)

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        return {"object": "list", "data": [_model(service, await _account(service, request))]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str, request: Request) -> dict[str, Any]:
        account = await _account(service, request)
        if name != service.card.identity:
            raise ApiError(404, "model_not_found", f"No such model; this service has {service.card.identity}.")
        return _model(service, account)

    @app.get("/v1/usage")
    async def usage(request: Request) -> dict[str, Any]:
        return _usage(await _account(service, request))

    @app.get("/health")
    async def health() -> Response:
        fine = await service.healthy()
        return JSONResponse({"status": "ok" if fine else "unavailable"}, 200 if fine else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _account(service: Service, request: Request) -> Account:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    account = await service.authenticate(key.strip() if scheme.lower() == "bearer" else "")
    request.state.account = account.id
    return account


def _model(service: Service, account: Account) -> dict[str, Any]:
    """What a client needs for its `TeacherCard`; the price is this account's."""
    card = service.card
    return {
        "id": card.identity,
        "object": "model",
        "created": 0,
        "owned_by": "vl2v",
        "revision": card.revision,
        "dimension": card.dimension,
        "logit_scale": card.logit_scale,
        "max_batch": service.limits.inputs,
        "idempotency_hours": service.settings.idempotency_hours,
        "price": {
            "per_1000_images": written(account.image_nano * 1000),
            "per_1000_texts": written(account.text_nano * 1000),
            "currency": account.currency,
        },
    }


def _usage(account: Account) -> dict[str, Any]:
    quota = account.quota_nano
    return {
        "object": "usage",
        "requests": account.requests,
        "images": account.images,
        "text_inputs": account.texts,
        "billed_units": account.images + account.texts,
        "cost": written(account.spent_nano),
        "quota": None if quota is None else written(quota),
        "remaining": None if quota is None else written(max(0, quota - account.spent_nano)),
        "currency": account.currency,
    }


async def _refuse(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        error = ApiError(error.status_code, "not_found", "No such path or method; see POST /v1/embeddings.")
    elif not isinstance(error, ApiError):
        error = ApiError(500, "internal_error", "The service failed on this request; tell the seller its x-request-id.")
    return JSONResponse(error.body, error.status, error.headers)


class Body:
    """A request's body as it comes in, bounded in size and time, and counted among all that are held.

    Args:
        service: its limits, and its gauge of bytes held.
        request: whose body.
    """

    def __init__(self, service: Service, request: Request) -> None:
        self._service, self._request = service, request
        self._chunks = request.stream()
        self._held = 0

    async def read(self) -> bytes:
        """All of it.

        Raises:
            ApiError: 413 if it is too large, 408 if it comes too slowly, 503 if too much is held already.
        """
        most = self._service.limits.body_bytes
        message = f"Expected a body of at most {most} bytes; send fewer or smaller images at a time."
        if int(self._request.headers.get("content-length") or 0) > most:  # the HTTP parser has seen that it is a number
            raise too_large(message)
        content = bytearray()
        try:
            async with asyncio.timeout(self._service.limits.body_seconds):
                async for chunk in self._chunks:
                    self._hold(len(chunk))
                    content += chunk
                    if len(content) > most:
                        raise too_large(message)
        except TimeoutError:
            raise ApiError(408, "too_slow", "The body did not arrive in time.", retry_after=1) from None
        return bytes(content)

    def _hold(self, size: int) -> None:
        if self._service.held + size > self._service.limits.held_bytes:
            message = "Too many large requests are at hand; try again as retry-after says. Nothing was billed."
            raise ApiError(503, "overloaded", message, retry_after=1)
        self._held += size
        self._service.held += size

    async def drain(self) -> None:
        """Read and forget the rest, within bounds: a client that is still sending would not see the answer."""
        left, clock = 2 * self._service.limits.body_bytes, asyncio.get_running_loop().time
        end = clock() + DRAIN_SECONDS
        try:
            async with asyncio.timeout(IDLE_SECONDS) as patience:
                async for chunk in self._chunks:
                    left -= len(chunk)
                    if left < 0:
                        return
                    patience.reschedule(min(end, clock() + IDLE_SECONDS))
        except (TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: it was read to its end
            return

    def release(self) -> None:
        """Count it no longer."""
        self._service.held -= self._held
        self._held = 0


class Envelope:
    """Around every request: its id, its headers, one line of log, its figures, and an answer if all else fails."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._metrics = app, service.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["id"], state["headers"] = uuid.uuid4().hex, {}
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
        except Exception:  # FastAPI has answered 500 already, and passes the fault on to be logged
            logger.exception("request %s failed", state["id"])
            if not status:
                await _last_resort(sending)
        self._log(scope, state, status, time.perf_counter() - started)

    def _log(self, scope: Scope, state: MutableMapping[str, Any], status: int, seconds: float) -> None:
        """The route's pattern is logged, not the path that was asked: that is the client's text."""
        route = getattr(scope.get("route"), "path", "unknown")
        self._metrics.answers.labels(route, status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        method = scope["method"] if scope["method"] in ("GET", "POST") else "other"
        who = state.get("account", "-")
        logger.info("%s %s %s %d %.0f ms account=%s", state["id"], method, route, status, 1000 * seconds, who)


async def _last_resort(send: Send) -> None:
    error = ApiError(500, "internal_error", "The service failed on this request; tell the seller its x-request-id.")
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(error.body).encode()})
