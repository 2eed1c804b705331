"""Parse a vendor's URI, ``jina:jina-clip-v2#rpm=60`` or ``https://host/v1``, to its adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from vl2v.errors import TeacherError
from vl2v.teacher.base import Price
from vl2v.teacher.http.vendors.base import Options, Wire

VENDORS = {
    "jina": ("vl2v.teacher.http.vendors.jina", "Jina", "jina:jina-clip-v2"),
    "cohere": ("vl2v.teacher.http.vendors.cohere", "Cohere", "cohere:embed-v4.0"),
    "voyage": ("vl2v.teacher.http.vendors.voyage", "Voyage", "voyage:voyage-multimodal-3"),
    "vertex": ("vl2v.teacher.http.vendors.vertex", "Vertex", "vertex:multimodalembedding@001"),
    "bedrock": ("vl2v.teacher.http.vendors.bedrock", "Bedrock", "bedrock:amazon.titan-embed-image-v1"),
    "azure": ("vl2v.teacher.http.vendors.azure", "Azure", "azure:<endpoint>"),
}
NUMBERS: dict[str, Callable[[str], Any]] = {
    "dimension": int,
    "logit_scale": float,
    "rpm": float,
    "ipm": float,
    "tpm": float,
    "concurrency": int,
    "timeout": float,
}


def is_remote(spec: str) -> bool:
    """Whether a teacher's spelling names one behind a network."""
    return spec.partition(":")[0] in ("http", "https", *VENDORS)


def open_wire(spec: str, price: Price | None = None) -> Wire:
    """The adapter that a spelling names.

    Args:
        spec: a URL, or ``<vendor>:<model>``; either with ``#option=value&...`` (see `Options`).
        price: the user's own, for a vendor whose price is not known or has changed.

    Raises:
        TeacherError: if it is misspelt, or holds a key.
    """
    name, _, fragment = spec.partition("#")
    options = _options(fragment)
    kind, _, model = name.partition(":")
    if kind in ("http", "https") or kind == "azure":
        _check_url(name if kind != "azure" else model)
    if kind in ("http", "https"):
        from vl2v.teacher.http.vendors.openai_compatible import OpenAICompatible

        return OpenAICompatible(name, options, price)
    module, cls, example = VENDORS[kind]
    if not model:
        raise TeacherError(f"'{kind}:' specifies no model.", expected=example, found=kind + ":", next_step="add it")
    found: Wire = getattr(import_module(module), cls)(model, options, price)
    return found


def _options(fragment: str) -> Options:
    known = [field.name for field in fields(Options)]
    values: dict[str, Any] = {}
    try:
        for name, text in parse_qsl(fragment, keep_blank_values=True, strict_parsing=True) if fragment else ():
            if name not in known:
                raise ValueError
            values[name] = NUMBERS.get(name, str)(text)
            if name in NUMBERS and not 0 < values[name] < 1e12:
                raise ValueError
    except ValueError:
        raise TeacherError(
            "The options after # in --teacher cannot be parsed.",
            expected="name=value, joined by &; names: " + ", ".join(known),
            found="something else",  # not repeated: somebody may have put a key there
            next_step="e.g. #model=clip&concurrency=4; a number must be above 0; never put a key there",
        ) from None
    return Options(**values)


def _check_url(url: str) -> None:
    malformed = TeacherError(
        "The teacher's address is malformed.",
        expected="http://host:port/v1",
        found="no host, or an invalid port",  # not repeated: it may hold a key
        next_step="correct --teacher; put an IPv6 address in brackets, http://[::1]:8080/v1",
    )
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        raise malformed from None
    if parts.username or parts.password or parts.query:
        raise TeacherError(
            "The teacher's address contains more than an address.",
            expected="no user, password or query, since the address is saved in the run's config",
            found="one of them",
            next_step="remove it; set a key in the environment, e.g. VL2V_API_KEY",
        )
    if not usable:
        raise malformed
