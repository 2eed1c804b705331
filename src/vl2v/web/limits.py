"""Limits on requests to an HTTP server."""

from __future__ import annotations

from dataclasses import dataclass

MB = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Limits on requests. Each is checked before the work that it limits.

    Attributes:
        inputs: maximum number of images per request.
        texts: maximum number of texts per request.
        body_bytes: maximum size of a request body in bytes.
        image_bytes: maximum size of an image file in bytes.
        pixels: maximum number of pixels per image; decoding takes up to about 30 bytes per pixel, one image at a time.
        text_characters: maximum number of characters per text.
        held_bytes: maximum memory in bytes for all request bodies; further requests get error 503.
        queue: maximum number of images and texts that are queued or processed; further requests get error 503.
        body_seconds: time limit in seconds for receiving a request.
        link_seconds: time limit in seconds for fetching all images of a request from URLs.
    """

    inputs: int = 64
    texts: int = 2048
    body_bytes: int = 64 * MB
    image_bytes: int = 10 * MB
    pixels: int = 20_000_000
    text_characters: int = 4000
    held_bytes: int = 512 * MB
    queue: int = 4096
    body_seconds: float = 60.0
    link_seconds: float = 10.0
