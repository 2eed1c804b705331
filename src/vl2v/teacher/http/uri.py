"""Parse the URI of a remote teacher, such as ``jina:jina-clip-v2#rpm=60`` or ``https://host/v1``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from vl2v.errors import TeacherError
from vl2v.teacher.base import Price
from vl2v.teacher.http.vendors.base import Wire
from vl2v.teacher.http.vendors.options import Options
from vl2v.teacher.registry import ADDRESSED, TEACHERS, VENDORS

TYPES: dict[str, Callable[[str], Any]] = {"str": str, "int | None": int, "float | None": float}  # of `Options`
HOST = re.compile(r"[\w.:-]+")  # of a name in any script, or an address


def open_wire(uri: str, price: Price | None = None, *, batch_api: bool = False) -> Wire:
    """Create the adapter for the URI of a remote teacher.

    Args:
        uri: a URL, or ``<vendor>:<model>``; either with ``#option=value&...`` (see `Options`).
        price: price of a vendor whose price is unknown or has changed.
        batch_api: whether to buy images by the vendor's batch API.

    Raises:
        TeacherError: if the URI is malformed, or contains a key, or the vendor has no batch API for images.
    """
    name, _, fragment = uri.partition("#")
    options = _options(fragment)
    kind, _, model = name.partition(":")
    if kind in ("http", "https"):
        model = name
    if kind in ADDRESSED:
        _check_url(model)
    adapter: type[Wire] = TEACHERS[kind]  # type: ignore[assignment]  # others are not remote
    if not model:
        example = VENDORS[kind][1].split()[0] if kind in VENDORS else f"{kind}:<model>"
        raise TeacherError(f"'{kind}:' specifies no model.", expected=example, found=kind + ":", next_step="add it")
    wire = adapter.for_model(model)(model, options, price)
    wire.stated_purposes()  # rejects one that the vendor does not offer, before anything is sent
    if batch_api:
        wire.use_batch_api()
    return wire


def _options(fragment: str) -> Options:
    types = {field.name: TYPES[str(field.type)] for field in fields(Options)}
    values: dict[str, Any] = {}
    try:
        for name, text in parse_qsl(fragment, keep_blank_values=True, strict_parsing=True) if fragment else ():
            values[name] = types[name](text)
            if types[name] is not str and not 0 < values[name] < 1e12:
                raise ValueError
    except (KeyError, ValueError):
        raise TeacherError(
            "The options after # in --teacher cannot be parsed.",
            expected="name=value, joined by &; names: " + ", ".join(types),
            found="other text, which is not shown here since it may contain a key",
            next_step="e.g. #model=clip&concurrency=4; a number must be above 0; never put a key there",
        ) from None
    return Options(**values)


def _check_url(url: str) -> None:
    malformed = TeacherError(
        "The teacher's address is malformed.",
        expected="http://host:port/v1",
        found="no host, or an invalid host or port",  # not repeated, since it may contain a key
        next_step="correct --teacher; put an IPv6 address in brackets, http://[::1]:8080/v1",
    )
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        usable = bool(HOST.fullmatch(parts.hostname or "")) and (parts.port is None or parts.port > 0)
    except ValueError:
        raise malformed from None
    if parts.username or parts.password or parts.query:
        raise TeacherError(
            "The teacher's address contains a user, a password or a query.",
            expected="host, port and path only, since the address is saved in the run's config",
            found="one of them",
            next_step="remove it; set a key in the environment, e.g. VL2V_API_KEY",
        )
    if not usable:
        raise malformed
