"""Routes of the vendor server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.types import ASGIApp

from vl2v.vendor_server.accounts import Account
from vl2v.vendor_server.money import written
from vl2v.vendor_server.service import Service
from vl2v.web.body import body_of
from vl2v.web.envelope import Envelope, answer_faults
from vl2v.web.faults import ApiError

logger = logging.getLogger("vl2v.vendor_server")
FAILED = "The service failed on this request; report its x-request-id to the vendor."


def create_app(service: Service) -> ASGIApp:
    """Create the ASGI application of the service."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    answer_faults(app, FAILED, "Unknown path or method; see POST /v1/embeddings.")
    _add_routes(app, service)
    return Envelope(app, service.metrics.answers, service.metrics.seconds, logger, FAILED)


def _add_routes(app: FastAPI, service: Service) -> None:
    # Also without /v1, which clients of infinity use.
    @app.post("/embeddings")
    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        async with body_of(request, service.limits, service.body_memory) as body:
            account = await _account(service, request)
            service.rates.take(account, request.state.headers)
            service.expect_revision(request.headers.get("vl2v-revision"))
            content = await body.read()
            key = request.headers.get("idempotency-key")
            reply = await service.embed(account, request.state.id, content, key)
        headers = {"idempotent-replayed": "true"} if reply.replayed else None
        return Response(reply.body, media_type="application/json", headers=headers)

    @app.get("/models")
    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        return {"object": "list", "data": [_model(service, await _account(service, request))]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str, request: Request) -> dict[str, Any]:
        account = await _account(service, request)
        if name != service.card.identity:
            raise ApiError(404, "model_not_found", f"Unknown model; this service has {service.card.identity}.")
        return _model(service, account)

    @app.get("/v1/usage")
    async def usage(request: Request) -> dict[str, Any]:
        return _usage(await _account(service, request))

    @app.get("/health")
    async def health() -> Response:
        faults = await service.faults()
        if faults:
            return JSONResponse({"status": "unavailable", "faults": faults}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _account(service: Service, request: Request) -> Account:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    account = await service.authenticate(key.strip() if scheme.lower() == "bearer" else "")
    request.state.account = account.id
    return account


def _model(service: Service, account: Account) -> dict[str, Any]:
    """Return the description of the model, with the price of this account; clients make a `TeacherCard` of it."""
    card = service.card
    return {
        "id": card.identity,
        "object": "model",
        "created": 0,
        "owned_by": "vl2v",
        "revision": card.revision,
        "dimension": card.dimension,
        "logit_scale": card.logit_scale,
        "max_batch": min(service.limits.inputs, service.limits.texts),
        "max_texts": service.limits.texts,
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
