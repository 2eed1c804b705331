"""A server on a real socket that imitates Gemini's API: embedContent, asyncBatchEmbedContent, batches.get and .list."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from peers import Peer, full_response, peer
from PIL import Image, ImageColor

MODEL = "gemini-embedding-2"
ACCEPTED = "PENDING"


@dataclass
class Job:
    """A batch job with its requests and results."""

    name: str
    label: str
    requests: list[dict[str, Any]]
    looks: int = 0
    state: str = ACCEPTED
    result: dict[str, Any] | None = None


@dataclass
class GeminiVendor:
    """The state of the vendor.

    Attributes:
        looks: number of times that a job is reported as unfinished.
        plan: maps a job's number (from 1) and a request's key to the request's error; None embeds it.
        end: the state in which job number i ends.
        on_create: called when a job has been created, before its name is sent; raising closes the connection.
        most: maximum number of unfinished jobs; a further one is refused with 429.
    """

    looks: int = 1
    plan: Callable[[int, str], dict[str, Any] | None] = lambda job, key: None
    end: Callable[[int], str] = lambda job: "SUCCEEDED"
    on_create: Callable[[Job], None] = lambda job: None
    most: int = 100
    jobs: list[Job] = field(default_factory=list)
    single: list[str] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    billed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Iterable[bytes | float]:
        """Answer one HTTP request."""
        with self.lock:
            self.requests.append((method, path))
            assert headers["x-goog-api-key"] == "test-key"
            return full_response(*self._answer(method, path, body))

    def _answer(self, method: str, path: str, body: bytes) -> tuple[Any, int]:
        if path == f"/v1beta/models/{MODEL}:embedContent":
            request = json.loads(body)
            self.single.append("text" if "text" in request["content"]["parts"][0] else "image")
            return {"embedding": {"values": _embedding(request)}}, 200
        if path == f"/v1beta/models/{MODEL}:asyncBatchEmbedContent":
            return self._create(json.loads(body)["batch"])
        if path.startswith("/v1beta/batches?"):
            return self._listed(path), 200
        jobs = [job for job in self.jobs if path == f"/v1beta/{job.name}"]
        if method != "GET" or not jobs:
            return {"error": {"code": 404, "message": "not found", "status": "NOT_FOUND"}}, 404
        self._work(jobs[0])
        return self._operation(jobs[0]), 200

    def _create(self, batch: dict[str, Any]) -> tuple[Any, int]:
        if sum(job.result is None for job in self.jobs) >= self.most:
            return {"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED"}}, 429
        job = Job(f"batches/j{len(self.jobs)}", batch["display_name"], batch["input_config"]["requests"]["requests"])
        self.jobs.append(job)
        self.on_create(job)
        return self._operation(job), 200

    def _listed(self, path: str) -> dict[str, Any]:
        """Return a page of the list with one job, the newest first."""
        at = int(path.rpartition("pageToken=")[2]) if "pageToken=" in path else 0
        listed = self.jobs[::-1]
        more = {"nextPageToken": str(at + 1)} if at + 1 < len(listed) else {}
        return ({"operations": [self._operation(job) for job in listed[at : at + 1]]} if listed else {}) | more

    def _work(self, job: Job) -> None:
        job.looks += 1
        job.state = "RUNNING"
        if job.looks <= self.looks or job.result is not None:
            job.state = job.state if job.result is None else job.result["state"]
            return
        number = self.jobs.index(job) + 1
        job.state = self.end(number)
        done = []
        for request in job.requests if job.state == "SUCCEEDED" else ():
            error = self.plan(number, request["metadata"]["key"])
            outcome = (
                {"error": error} if error else {"response": {"embedding": {"values": _embedding(request["request"])}}}
            )
            done.append(outcome | {"metadata": request["metadata"]})
        self.billed += sum("response" in outcome for outcome in done)
        job.result = {"state": job.state, "done": done[::-1]}  # in another order, because keys identify the results

    def _operation(self, job: Job) -> dict[str, Any]:
        about: dict[str, Any] = {"displayName": job.label, "state": f"BATCH_STATE_{job.state}"}
        stats: dict[str, int] = {"requestCount": len(job.requests)}
        operation: dict[str, Any] = {"name": job.name, "metadata": about}
        if job.result is not None:
            done = job.result["done"]
            stats |= {"successfulRequestCount": sum("response" in outcome for outcome in done)}
            stats |= {"failedRequestCount": sum("error" in outcome for outcome in done)}
            operation["done"] = True
            if done:
                operation["response"] = {"inlinedResponses": {"inlinedResponses": done}}
            elif job.state != "SUCCEEDED":
                operation["error"] = {"code": 1, "message": f"the job is {job.state.lower()}"}
        about["batchStats"] = {name: str(count) for name, count in stats.items()}
        return operation


def _embedding(request: dict[str, Any]) -> list[float]:
    """Return the mean colour of an image or the colour that a text names."""
    (part,) = request["content"]["parts"]
    if "text" in part:
        named = [name for name in ("red", "blue", "green") if name in part["text"]]
        colour = ImageColor.getrgb(named[0] if named else "grey")
    else:
        with Image.open(io.BytesIO(base64.b64decode(part["inline_data"]["data"]))) as image:
            red, green, blue = image.convert("RGB").resize((1, 1)).tobytes()
        colour = (red, green, blue)
    return [value / 255 for value in colour] + [0.01] * (request["output_dimensionality"] - 3)


@contextmanager
def gemini(vendor: GeminiVendor) -> Iterator[Peer]:
    """A running vendor."""
    with peer(vendor.answer) as server:
        yield server
