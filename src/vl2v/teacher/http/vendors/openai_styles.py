"""How OpenAI-compatible servers accept images, and a test that a server embeds them.

OpenAI's API has no images, so every server has a way of its own. A server that does not know the one in use may take an
image's data URI for a text and answer with an embedding of it.

Sources of the forms: infinity_emb/fastapi_schemas/pymodels.py of michaelfeil/infinity, 0.0.78 (``modality``);
vllm/entrypoints/pooling/base/protocol.py of vllm-project/vllm at 020638a (``input`` takes strings and token ids only,
images stand in ``messages``) and its examples/pooling/embed/vision_embedding_online.py at 010ffcc (texts
stand there, too, and so pass through the same chat template).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v.errors import TeacherError
from vl2v.teacher.http.remote import Kind

STYLES = ("infinity", "messages", "content")
SAME = 0.99999  # cosine of two embeddings of one text

PROBE = base64.b64decode(  # a PNG of 64 x 64 pixels, half of it blue and half yellow
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQMAAACQp+OdAAAABlBMVEUUKMj/3BT2pzHtAAAAGklEQVR42mNkYGBg+M/AwMDEAAWjjFEG"
    "8QwAyyMBf5gYzUkAAAAASUVORK5CYII="
)

Ask = Callable[[Kind, Sequence[Any]], NDArray[Any]]
"""Asks for embeddings of images (bytes) or texts, free of charge: [N, D]."""


def one_image(style: str, uris: Sequence[str], words: str = "") -> dict[str, Any]:
    """The part of a request that holds images.

    Args:
        style: one of `STYLES`.
        uris: data URIs; exactly one in the style ``messages``.
        words: a text that a model wants next to the image, in the style ``messages``.
    """
    if style == "infinity":
        return {"input": list(uris), "modality": "image"}
    parts = [{"type": "image_url", "image_url": {"url": uri}} for uri in uris]
    if style == "content":
        return {"input": [{"content": [part]} for part in parts]}
    return _message([*parts, *([{"type": "text", "text": words}] if words else [])])


def some_texts(style: str, texts: Sequence[str]) -> dict[str, Any]:
    """The part of a request that holds texts; exactly one in the style ``messages``."""
    return _message([{"type": "text", "text": texts[0]}]) if style == "messages" else {"input": list(texts)}


def _message(content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


def find_style(base: str, styles: Sequence[str], use: Callable[[str], None], ask: Ask, uri: str) -> None:
    """Find the first style in which a server embeds the image `PROBE`, and leave it in use.

    Args:
        base: the server's address, for messages.
        styles: what to try, in order.
        use: told of each style before it is tried.
        ask: see `Ask`.
        uri: the data URI of `PROBE`.

    Raises:
        TeacherError: if there is none; it says what each one brought.
    """
    found = []
    for style in styles:
        use(style)
        try:
            image = ask("image", [PROBE])
        except TeacherError as error:
            if not _is_of_style(error):
                raise
            found.append(f"{style}: {error.found or error.problem}")
            continue
        if not _is_text(image, uri, ask):
            return
        found.append(f"{style}: an image and its data URI as a text get the same embedding")
    raise TeacherError(
        f"{base} does not embed images.",
        expected=f"different embeddings for an image and its data URI as a text, in the style {' or '.join(styles)}",
        found="; ".join(found),
        next_step="serve a model with an image encoder, such as a CLIP (text-embeddings-inference has none);"
        f" if there is one, specify the server's style: {base}#style={'|'.join(STYLES)}",
    )


def _is_of_style(error: TeacherError) -> bool:
    """Whether a server may have failed on the form of a request, rather than on who sent it or how often."""
    by_status = any(f"(HTTP {status})" in error.problem for status in (400, 404, 405, 413, 415, 422, 500, 501))
    return by_status or error.found.startswith("a response in another format")


def _is_text(image: NDArray[Any], uri: str, ask: Ask) -> bool:
    """Whether the embedding of `PROBE` is that of its data URI taken as a text."""
    try:
        text = ask("text", [uri])
    except TeacherError as error:
        if not _is_of_style(error):
            raise
        return False  # too long for the model, so the image cannot have been taken for it
    rows = [np.asarray(row, np.float64).ravel() for row in (image, text)]
    norms = [float(np.linalg.norm(row)) for row in rows]
    if rows[0].shape != rows[1].shape or not min(norms) > 0:
        return False  # refused elsewhere, with better words
    return float(rows[0] @ rows[1]) / (norms[0] * norms[1]) > SAME
