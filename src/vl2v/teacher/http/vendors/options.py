"""Options after ``#`` in the URI of a remote teacher."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Options after ``#`` in the URI of a remote teacher.

    Attributes:
        model: name of the model, for a server with several.
        style: format of images for an OpenAI-compatible server: ``infinity``, ``messages`` (vLLM) or ``content``.
        image_text: text sent with each image in the style ``messages``, for models that require one.
        image_purpose: what image embeddings are for, in the vendor's words, such as ``search_document``.
        text_purpose: what text embeddings are for, in the vendor's words.
        dimension: D, if the vendor offers several dimensions or does not state it.
        logit_scale: s, if the vendor does not state it; 100, as in CLIP, by default.
        rpm: maximum number of requests per minute.
        ipm: maximum number of images per minute.
        tpm: maximum number of text tokens per minute.
        concurrency: maximum number of concurrent requests.
        timeout: seconds to wait for a response.
    """

    model: str = ""
    style: str = ""
    image_text: str = ""
    image_purpose: str = ""
    text_purpose: str = ""
    dimension: int | None = None
    logit_scale: float | None = None
    rpm: float | None = None
    ipm: float | None = None
    tpm: float | None = None
    concurrency: int | None = None
    timeout: float | None = None
