"""How OpenAI-compatible servers accept images, and a test that a server embeds them.

The API of OpenAI has no images, so every server has its own format. A server that does not know a format may take the
data URI of an image for a text and return the embedding of the text.

Sources of the formats: infinity_emb/fastapi_schemas/pymodels.py of michaelfeil/infinity, 0.0.78 (``modality``);
vllm/entrypoints/pooling/base/protocol.py of vllm-project/vllm at 020638a (``input`` accepts only strings and token ids,
images are in ``messages``) and its examples/pooling/embed/vision_embedding_online.py at 010ffcc (texts are also in
``messages`` and therefore use the same chat template).
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
SAME = 0.99999  # cosine similarity above which two embeddings are of the same text

PROBE = base64.b64decode(  # a PNG of 64 x 64 pixels, half of it blue and half yellow
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQMAAACQp+OdAAAABlBMVEUUKMj/3BT2pzHtAAAAGklEQVR42mNkYGBg+M/AwMDEAAWjjFEG"
    "8QwAyyMBf5gYzUkAAAAASUVORK5CYII="
)

Ask = Callable[[Kind, Sequence[Any]], NDArray[Any]]
"""A function that embeds images (bytes) or texts free of charge and returns [N, D]."""


def one_image(style: str, uris: Sequence[str], words: str = "") -> dict[str, Any]:
    """Return the part of a request that contains images.

    Args:
        style: one of `STYLES`.
        uris: data URIs; exactly one in the style ``messages``.
        words: text that a model requires next to the image, in the style ``messages``.
    """
    if style == "infinity":
        return {"input": list(uris), "modality": "image"}
    parts = [{"type": "image_url", "image_url": {"url": uri}} for uri in uris]
    if style == "content":
        return {"input": [{"content": [part]} for part in parts]}
    return _message([*parts, *([{"type": "text", "text": words}] if words else [])])


def some_texts(style: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return the part of a request that contains texts; exactly one in the style ``messages``."""
    return _message([{"type": "text", "text": texts[0]}]) if style == "messages" else {"input": list(texts)}


def _message(content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


def find_style(base: str, styles: Sequence[str], use: Callable[[str], None], ask: Ask, uri: str) -> None:
    """Select the first style in which a server embeds the image `PROBE`.

    Args:
        base: address of the server, for messages.
        styles: the styles to try, in order.
        use: sets the style before it is tried.
        uri: the data URI of `PROBE`.

    Raises:
        TeacherError: if the server embeds it in no style; it states the outcome of each.
    """
    outcomes = []
    for style in styles:
        use(style)
        try:
            image = ask("image", [PROBE])
        except TeacherError as error:
            if not _is_of_style(error):
                raise
            outcomes.append(f"{style}: {error.found or error.problem}")
            continue
        if not _is_text(image, uri, ask):
            return
        outcomes.append(f"{style}: an image and its data URI as a text get the same embedding")
    raise TeacherError(
        f"{base} does not embed images.",
        expected=f"different embeddings for an image and its data URI as a text, in the style {' or '.join(styles)}",
        found="; ".join(outcomes),
        next_step="serve a model with an image encoder, such as a CLIP (text-embeddings-inference has none);"
        f" if there is one, specify the server's style: {base}#style={'|'.join(STYLES)}",
    )


def _is_of_style(error: TeacherError) -> bool:
    """Whether an error may be due to the format of a request, rather than to the key or the rate."""
    by_status = any(f"(HTTP {status})" in error.problem for status in (400, 404, 405, 413, 415, 422, 500, 501))
    return by_status or error.found.startswith("a response in another format")


def _is_text(image: NDArray[Any], uri: str, ask: Ask) -> bool:
    """Whether the embedding of `PROBE` equals the embedding of its data URI as a text."""
    try:
        text = ask("text", [uri])
    except TeacherError as error:
        if not _is_of_style(error):
            raise
        return False  # the text is too long for the model, so the image was not taken for a text
    rows = [np.asarray(row, np.float64).ravel() for row in (image, text)]
    norms = [float(np.linalg.norm(row)) for row in rows]
    if rows[0].shape != rows[1].shape or not min(norms) > 0:
        return False  # rejected elsewhere, with a better message
    return float(rows[0] @ rows[1]) / (norms[0] * norms[1]) > SAME
