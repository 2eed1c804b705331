"""Conversion of images for requests, and of the values and errors in responses, as most vendors use them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from vl2v_runtime.formats import format_of


def openai_rows(answer: Any, count: int) -> list[Any]:
    """Return the rows of a response in the format of OpenAI, ordered by ``index``.

    Each row is a list of floats, or base64 of float32.

    Raises:
        LookupError, TypeError, ValueError: if the format differs, or the indexes are not 0 to `count` - 1.
    """
    rows = {int(item["index"]): item["embedding"] for item in answer["data"]}
    if len(answer["data"]) != count or sorted(rows) != list(range(count)):
        raise ValueError(f"indexes {sorted(rows)[:5]}... of {len(answer['data'])} rows for {count} inputs")
    return [from_base64(rows[i]) if isinstance(rows[i], str) else rows[i] for i in range(count)]


def from_base64(text: str) -> np.ndarray:
    """Decode base64 of little-endian float32 numbers.

    Raises:
        ValueError: if the text is not valid.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4")


def b64(data: bytes) -> str:
    """Encode bytes as base64 text."""
    return base64.b64encode(data).decode()


def data_uri(image: bytes) -> str:
    """Encode an image file as a data URI, with the media type according to its first bytes."""
    return f"data:{mime(image)};base64,{b64(image)}"


def mime(image: bytes) -> str:
    """Return the media type of an image file according to its first bytes."""
    form = format_of(image)
    return f"image/{form.name.lower() if form else 'jpeg'}"


def error_code(answer: Any) -> str:
    """Return the ``code``, ``type`` or ``status`` of an error response; empty if there is none."""
    inner = answer.get("error", answer) if isinstance(answer, dict) else None
    if not isinstance(inner, dict):
        return ""
    return str(inner.get("code") or inner.get("type") or inner.get("status") or "")


def error_text(answer: Any) -> str:
    """Return the message of an error response; empty if there is none."""
    if not isinstance(answer, dict):
        return ""
    for part in (answer.get("error"), answer):
        if isinstance(part, str):
            return part
        if isinstance(part, dict):
            message = part.get("message") or part.get("detail")
            if isinstance(message, str):
                return message
            if isinstance(message, list) and message and isinstance(first := message[0], dict) and "msg" in first:
                field = ".".join(map(str, first.get("loc") or ()))  # format of FastAPI; the input is left out
                return f"{field}: {first['msg']}" if field else str(first["msg"])
    return ""
