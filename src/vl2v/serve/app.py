"""Routes of a served student."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import fields
from functools import partial
from typing import Annotated

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import ValidationError
from starlette.types import ASGIApp

from vl2v import __version__
from vl2v.errors import BudgetError, DiskFullError, StudentError, TeacherError, Vl2vError
from vl2v.serve.guard import SECURITY, check_host, check_origin
from vl2v.serve.pages import api_page, main_page
from vl2v.serve.schemas import AddedClasses, Classes, ErrorResponse, ModelInfo, NewClasses, Prediction
from vl2v.serve.service import Options, Service
from vl2v.web.body import body_of
from vl2v.web.envelope import Envelope, answer_faults
from vl2v.web.faults import ApiError, schema
from vl2v.web.limits import Limits
from vl2v_runtime.trust import CONFIDENCE

logger = logging.getLogger("vl2v.serve")
FAILED = "The server failed on this request; see its log under the x-request-id of the response."
HEALTH_SECONDS = 10
NEIGHBOURS = 24
OPTIONS = tuple(option.name for option in fields(Options))
SMALL = Limits(body_bytes=100_000)  # a list of names
STATUSES: dict[type[Vl2vError], tuple[int, str]] = {
    BudgetError: (402, "over_budget"),
    StudentError: (409, "impossible_class"),
    TeacherError: (502, "teacher_failed"),
    DiskFullError: (507, "disk_full"),
}
ONE_IMAGE = {"schema": {"type": "string", "format": "binary"}}
FORM = {"type": "object", "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}}}
PACKED = {
    "type": "object",
    "required": ["images"],
    "properties": {"images": {"type": "array", "items": {"type": "string", "description": "base64 or data URI"}}},
}
IMAGES = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": FORM},
            "application/json": {"schema": PACKED},
            "image/*": ONE_IMAGE,
        },
    }
}

NAMES = {"requestBody": {"required": True, "content": {"application/json": {"schema": NewClasses.model_json_schema()}}}}


def create_app(service: Service, *, local: bool = True) -> ASGIApp:
    """Create the ASGI application of a served student.

    Args:
        local: whether the server listens only on this machine; requests with a foreign host name are then rejected.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.stop()

    async def guard(request: Request) -> None:
        check_host(request, local)
        if request.method not in ("GET", "HEAD"):
            check_origin(request)
        await service.refresh()

    app = FastAPI(
        title="vl2v serve",
        version=__version__,
        description="An image classifier made by vl2v. Every error response has a body of the type ErrorResponse.",
        lifespan=lifespan,
        dependencies=[Depends(guard)],
        docs_url=None,  # the page of FastAPI loads files from another host
        redoc_url=None,
        redirect_slashes=False,
        responses={"4XX": {"model": ErrorResponse, "description": "Error; the body states the reason."}},
    )
    answer_faults(app, FAILED, "Unknown path or method; see /docs.")
    _add_answers(app, service)
    _add_classes(app, service)
    _add_upkeep(app, service)
    _add_pages(app)
    metrics = service.metrics
    return Envelope(app, metrics.answers, metrics.seconds, logger, FAILED, SECURITY)


def _add_answers(app: FastAPI, service: Service) -> None:
    @app.post("/v1/predict", responses={200: {"model": Prediction}}, openapi_extra=IMAGES)
    async def predict(
        request: Request,
        top_k: Annotated[int, Query(ge=1, description="Number of classes to return per image.")] = 5,
        coverage: Annotated[
            float | None,
            Query(description="Mark predictions as accepted or unsure, by the threshold for this coverage."),
        ] = None,
        score: Annotated[str, Query(description="Score for `coverage`: confidence, energy or negatives.")] = CONFIDENCE,
        neighbours: Annotated[
            int, Query(ge=0, le=NEIGHBOURS, description="Number of similar training images to return per image.")
        ] = 0,
    ) -> Response:
        """Classify images. The response contains a prediction or an error for each, in their order."""
        if unknown := len(request.query_params.keys() - OPTIONS):
            raise schema(f"Found {unknown} unknown option(s); known are {', '.join(OPTIONS)}.", "query")
        options = Options(top_k, coverage, neighbours, score)
        kind = request.headers.get("content-type", "")
        async with body_of(request, service.limits, service.body_memory) as body:
            work = partial(service.predict, kind, await body.read(), options)
            return Response(await service.in_executor(work), media_type="application/json")

    @app.get("/v1/model")
    async def model() -> ModelInfo:
        """Describe the served student and the limits on requests."""
        return service.about()

    @app.get("/v1/gallery/{number}", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
    async def picture(number: int) -> Response:
        """Return a thumbnail of a training image."""
        if service.gallery is None or not 0 <= number < len(service.gallery):
            raise ApiError(404, "not_found", "Unknown training image.")
        return Response(
            service.gallery.pictures[number], media_type="image/jpeg", headers={"cache-control": "no-cache"}
        )


def _add_classes(app: FastAPI, service: Service) -> None:
    def known() -> list[str]:
        return service.engine.model.classes

    @app.get("/v1/classes")
    async def classes() -> Classes:
        """List the current classes."""
        return Classes(classes=known())

    @app.post("/v1/classes", openapi_extra=NAMES)
    async def add(request: Request) -> AddedClasses:
        """Add classes. A budget buys their texts and adds them; without one, only the price is stated."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, "unsupported_media_type", "Expected application/json.", param="content-type")
        async with body_of(request, SMALL, service.body_memory) as body:
            try:
                requested = NewClasses.model_validate_json(await body.read())
            except ValidationError as error:
                raise schema(_fault_of(error), "body") from None
        names, budget, new_names = requested.names, requested.budget, list[str]()
        with _worded():
            price = await service.edit(lambda editor: editor.price(names))
            if budget is not None:
                new_names = await service.edit(lambda editor: editor.add(names, budget), "added")
        return AddedClasses(price=price, added=new_names, classes=known())

    @app.delete("/v1/classes/{name:path}")
    async def remove(name: str) -> Classes:
        """Remove a class. Its text embedding remains stored, so adding the class again is free."""
        if name not in known():
            raise ApiError(404, "no_such_class", "Unknown class; see GET /v1/classes.")
        with _worded():
            await service.edit(lambda editor: editor.remove(name), "removed")
        return Classes(classes=known())


def _add_upkeep(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    async def health() -> Response:
        """Check whether the model works: 200 or 503."""
        try:
            await asyncio.wait_for(service.in_executor(service.check), HEALTH_SECONDS)
        except Exception:
            logger.exception("the health check failed")
            return JSONResponse({"status": "unavailable"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    async def metrics() -> Response:
        """Return metrics in the text format of Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_pages(app: FastAPI) -> None:
    main, docs = main_page(), api_page(app.openapi())

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return main

    @app.get("/docs", include_in_schema=False)
    async def api() -> HTMLResponse:
        return docs


@contextmanager
def _worded() -> Iterator[None]:
    """Convert errors of vl2v to error responses."""
    try:
        yield
    except Vl2vError as error:
        status, code = next((how for kind, how in STATUSES.items() if isinstance(error, kind)), (409, "refused"))
        parts = {"Expected": error.expected, "Found": error.found, "Next": error.next_step}
        sentences = [error.problem, *(f"{name}: {text}." for name, text in parts.items() if text)]
        raise ApiError(status, code, " ".join(sentences)) from error


def _fault_of(error: ValidationError) -> str:
    """Return the first fault of a body, without repeating what the client sent."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'The body'}: {first['msg']}."
