"""Limits on requests to an HTTP server."""

from __future__ import annotations

from dataclasses import dataclass

MB = 1_000_000


@dataclass(frozen=True)
class Limits:
    """How much is taken from a client; each is checked before the work it bounds.

    Attributes:
        inputs: images of one request.
        texts: texts of one request.
        body_bytes: one request.
        image_bytes: one image file.
        pixels: one image; decoding takes up to about 30 bytes a pixel, one image at a time.
        text_characters: one text.
        held_bytes: all requests that are being read or worked on; beyond it new ones get 503.
        queue: images and texts that wait or are being embedded, over all clients; beyond it 503.
        body_seconds: how long a request may take to arrive.
        link_seconds: how long all the images of a request that are named by URL may take to arrive.
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
