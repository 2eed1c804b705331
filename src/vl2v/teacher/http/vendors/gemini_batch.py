"""Batch API of Google Gemini: ``models/...:asyncBatchEmbedContent`` with the requests in its body.

According to "Batch API" (guide and reference) in the vendor's documentation, read on 2026-11-28: half the price, "the
supported modalities are the same as on the interactive API", a target of 24 hours, jobs expire after 48 hours, requests
in the body of less than 20 MB, and "the creation of a batch job is not idempotent". States are called
``BATCH_STATE_...`` in the reference and ``JOB_STATE_...`` in the guide. The documents do not state whether a failed
request is charged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode

from vl2v.teacher.http.jobs import JobState, Refusal
from vl2v.teacher.http.packing import MEGA
from vl2v.teacher.http.vendors.base import Wire
from vl2v.teacher.http.vendors.prices import PriceSource

MODEL = "gemini-embedding-2"  # the price list has no batch price for the preview
PER_1000_IMAGES = Decimal("0.06")
SOURCE = PriceSource(
    date(2026, 8, 28), "a transcript of the vendor's price list", "https://ai.google.dev/gemini-api/docs/pricing"
)
NAME = re.compile(r"batches/[A-Za-z0-9_-]+")
ENDED = ("succeeded", "failed", "cancelled", "expired")
FINAL = frozenset({3, 5, 7, 9, 11, 12, 16})  # codes of google.rpc for requests that would fail again


class GeminiBatch:
    """See `vl2v.teacher.http.jobs.BatchApi`.

    Args:
        wire: adapter of the vendor for single requests.
    """

    images = 400  # the response contains the embeddings, about 130 KB each
    request_bytes = 19 * MEGA
    jobs = 20
    usual, expires = timedelta(hours=24), timedelta(hours=48)

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @property
    def create_url(self) -> str:
        """See `BatchApi.create_url`."""
        return f"{self._wire.base}/v1beta/models/{self._wire.model}:asyncBatchEmbedContent"

    def request(self, label: str, images: Sequence[bytes]) -> bytes:
        """See `BatchApi.request`."""
        model = {"model": f"models/{self._wire.model}"}
        requests = [
            {"request": model | self._wire.content("image", [image]), "metadata": {"key": str(i)}}
            for i, image in enumerate(images)
        ]
        batch = {"display_name": label, "input_config": {"requests": {"requests": requests}}}
        return json.dumps({"batch": batch}, separators=(",", ":")).encode()

    def job_url(self, name: str) -> str:
        """See `BatchApi.job_url`."""
        return f"{self._wire.base}/v1beta/{quote(name)}"

    def list_url(self, page: str) -> str:
        """See `BatchApi.list_url`. A page is one job, since jobs may be listed with their results."""
        query = {"pageSize": "1"} | ({"pageToken": page} if page else {})
        return f"{self._wire.base}/v1beta/batches?{urlencode(query)}"

    def page(self, answer: Any) -> tuple[dict[str, str], str]:
        """See `BatchApi.page`."""
        if answer.get("error"):
            raise ValueError("an error instead of a list")
        operations = [(str(entry["name"]), entry.get("metadata") or {}) for entry in answer.get("operations", ())]
        names = {str(about.get("displayName")): name for name, about in operations if NAME.fullmatch(name)}
        return names, str(answer.get("nextPageToken") or "")

    def state(self, answer: Any, count: int = 0) -> JobState:
        """See `BatchApi.state`."""
        name, about = str(answer["name"]), answer.get("metadata") or {}
        if not NAME.fullmatch(name):
            raise ValueError("a job with another kind of name")
        state = str(about.get("state", "")).rpartition("_STATE_")[2].lower() or "pending"
        stats = about.get("batchStats") or {}
        succeeded, failed = (int(stats.get(f"{kind}RequestCount") or 0) for kind in ("successful", "failed"))
        ended = state in ENDED
        return JobState(
            name,
            state,
            ended,
            succeeded + failed,
            succeeded,
            _answers(answer.get("response") or about.get("output") or {}, count) if ended and count else None,
            str((answer.get("error") or {}).get("message") or "")[:300],
        )


def _answers(output: Any, count: int) -> list[list[float] | Refusal] | None:
    """Return the results of a job in the order of its requests; None if there are none.

    A job that was cancelled or has expired may lack some.
    """
    responses = output.get("inlinedResponses") or output.get("inlinedEmbedContentResponses")
    responses = responses.get("inlinedResponses") if isinstance(responses, dict) else responses
    if not responses:
        return None
    keyed = {int(_key(entry, i)): _outcome(entry) for i, entry in enumerate(responses)}
    if len(keyed) != len(responses) or not keyed.keys() <= set(range(count)):
        raise ValueError(f"{len(responses)} results for {count} requests, with duplicate or unknown keys")
    return [keyed.get(i, Refusal("no result", final=False)) for i in range(count)]


def _key(entry: Any, position: int) -> Any:
    return (entry.get("metadata") or {}).get("key", position)


def _outcome(entry: Any) -> list[float] | Refusal:
    if error := entry.get("error"):
        code = int(error.get("code") or 0)
        final = code in FINAL or (400 <= code < 500 and code not in (408, 429))
        return Refusal(str(error.get("message") or f"code {code}")[:300], final)
    values: list[float] = entry["response"]["embedding"]["values"]
    return values
