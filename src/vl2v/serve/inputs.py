"""Parse images from a request body: form data, JSON with base64, or one image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from email.message import Message
from pathlib import PurePath
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import FormParser

from vl2v.web.faults import ApiError, schema
from vl2v.web.images import from_base64
from vl2v.web.limits import Limits

NAME_LENGTH = 200
JSON_FORM = '{"images": [<base64 or data URI>, or {"name": .., "image": <base64 or data URI>}]}'


@dataclass(frozen=True)
class Upload:
    """One image of a request.

    Attributes:
        name: name given by the client; may be empty.
        data: bytes of the file, not yet validated.
        fault: the error if there are no bytes.
    """

    name: str
    data: bytes = b""
    fault: ApiError | None = None


def read(content_type: str, body: bytes, limits: Limits) -> list[Upload]:
    """Parse the images of `POST /v1/predict`, in their order.

    Args:
        limits: `Limits.inputs` and `Limits.image_bytes` are used.

    Returns:
        At least one image.

    Raises:
        ApiError: 415 for another content type, 422 for a malformed body or too many images.
    """
    header = Message()
    header["content-type"] = content_type
    kind = header.get_content_type() if content_type else ""
    if kind == "multipart/form-data":
        boundary = header.get_param("boundary")
        return _form(boundary if isinstance(boundary, str) else "", body, limits)
    if kind == "application/json":
        return _json(body, limits)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return [Upload("", body)]
    message = "Expected multipart/form-data with files, application/json with base64, or an image as the body."
    raise ApiError(415, "unsupported_media_type", message, param="content-type")


def _form(boundary: str, body: bytes, limits: Limits) -> list[Upload]:
    uploads: list[Upload] = []

    def take(file: Any) -> None:
        _check_count(len(uploads) + 1, limits)
        data = file.file_object
        data.seek(0)
        uploads.append(Upload(_name((file.file_name or b"").decode("utf-8", "replace")), data.read()))
        file.close()

    def refuse(_: Any) -> None:
        raise schema("Expected parts that are files (with a filename); options go into the query.")

    try:
        config = {"MAX_MEMORY_FILE_SIZE": len(body) + 1}
        parser = FormParser("multipart/form-data", refuse, take, boundary=boundary, config=config)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError, UnicodeError):
        raise schema("The body is not multipart/form-data, or has no boundary.") from None
    if not uploads:
        raise schema("Expected at least one file.")
    return uploads


def _json(body: bytes, limits: Limits) -> list[Upload]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise schema("The body is not JSON in UTF-8.") from None
    images = fields.get("images") if isinstance(fields, dict) and set(fields) == {"images"} else None
    if not isinstance(images, list) or not images:
        raise schema(f"Expected {JSON_FORM}; options go into the query.", "images")
    _check_count(len(images), limits)
    return [_entry(value, f"images[{i}]", limits) for i, value in enumerate(images)]


def _entry(value: Any, param: str, limits: Limits) -> Upload:
    name = ""
    if isinstance(value, dict) and set(value) <= {"name", "image"} and isinstance(value.get("name", ""), str):
        name, value = _name(value.get("name", "")), value.get("image")
    if not isinstance(value, str):
        raise schema(f"Expected {JSON_FORM}.", param)
    try:
        return Upload(name, from_base64(value, None, limits))
    except ApiError as error:
        return Upload(name, fault=error)


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.inputs:
        raise schema(f"Expected at most {limits.inputs} images; send several requests.", code="too_many_images")


def _name(text: str) -> str:
    """Return the last part of a path, without unprintable characters."""
    plain = "".join(c for c in text if c.isprintable())
    return PurePath(plain.replace("\\", "/")).name[:NAME_LENGTH]
