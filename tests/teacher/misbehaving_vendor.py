"""A vendor on a real socket that meters exactly and fails with configurable probabilities."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DIMENSION = 4
PER_IMAGE, PER_TEXT = Decimal("0.0006"), Decimal("0.0001")

FAULTS = {"429": 0.10, "500": 0.05, "timeout": 0.03, "cut": 0.01, "order": 0.01, "nan": 0.01}
"""The faults, with the probability of each per request."""


def answer_to(content: bytes) -> np.ndarray:
    """The vector of an image's bytes or of a text, [D] float32."""
    return np.frombuffer(hashlib.sha256(b"v" + content).digest(), np.uint8)[:DIMENSION].astype(np.float32) + 1


def digests_of(contents: list[bytes]) -> NDArray[np.uint8]:
    """Return the SHA-256 digests [N, 32] of contents."""
    return np.array([list(hashlib.sha256(content).digest()) for content in contents], np.uint8).reshape(-1, 32)


def picture(number: int) -> bytes:
    """Return a small PNG that is different for every number."""
    image = Image.frombytes("RGB", (2, 2), hashlib.sha256(b"%d" % number).digest()[:12])
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


@dataclass
class Meter:
    """What was billed: the number of times for each input, and the money."""

    inputs: Counter[bytes] = field(default_factory=Counter)
    money: Decimal = Decimal(0)
    requests: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_in_flight: int = 0


class UnreliableVendor:
    """Serves until it is closed. Use it as a context manager.

    Args:
        faults: probabilities by name; see `FAULTS`.
        seed: of the faults.
        idempotent: whether it describes itself as ours, and honours Idempotency-Key.
        hang: seconds that a time-out lasts.
        key: the only API key it takes, if there is one.
        script: statuses or fault names for the first requests, before chance takes over.
        extra: headers of refusals.
        rejects: images, a request with any of which is answered by status 422 and not billed.
    """

    def __init__(
        self,
        faults: dict[str, float] | None = None,
        *,
        seed: int = 0,
        idempotent: bool = True,
        hang: float = 0.6,
        key: str = "",
        script: list[str] | None = None,
        extra: dict[str, str] | None = None,
        max_batch: int = 16,
        work: float = 0.0,
        rejects: set[bytes] | None = None,
    ) -> None:
        self.meter, self.lock = Meter(), threading.Lock()
        self.faults, self.random, self.idempotent = faults or {}, random.Random(seed), idempotent
        self.hang, self.key, self.script, self.extra = hang, key, list(script or []), extra or {}
        self.max_batch, self.work, self.rejects = max_batch, work, rejects or set()
        self.answers_by_key: dict[str, tuple[bytes, bytes]] = {}
        self.in_flight = 0
        vendor = self

        class Handler(_Handler):
            def setup(self) -> None:
                self.vendor = vendor
                super().setup()

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Ignore clients that were killed."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> UnreliableVendor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def fault(self) -> str:
        """Return the fault of the next request, or an empty string for none."""
        if self.script:
            return self.script.pop(0)
        chance = self.random.random()
        for name, share in self.faults.items():
            if chance < share:
                return name
            chance -= share
        return ""

    def models(self) -> dict[str, Any]:
        """The body of ``GET /v1/models``."""
        entry: dict[str, Any] = {"id": "clip", "object": "model"}
        if self.idempotent:
            entry |= {"identity": "test:clip", "revision": "1", "dimension": DIMENSION, "logit_scale": 20.0}
            entry |= {"price_per_1000_images": str(PER_IMAGE * 1000), "price_per_1000_texts": str(PER_TEXT * 1000)}
            entry |= {"currency": "USD", "max_batch": self.max_batch}
        return {"object": "list", "data": [entry]}

    def embed(self, body: bytes, key: str) -> bytes:
        """Answer a request and bill it, or repeat the earlier answer to its key."""
        with self.lock:
            if self.idempotent and key in self.answers_by_key:
                digest, answer = self.answers_by_key[key]
                assert digest == hashlib.sha256(body).digest(), "one key, two bodies"
                return answer
            request = json.loads(body)
            image = request.get("modality") == "image"
            inputs = [base64.b64decode(t.partition(",")[2]) if image else t.encode() for t in request["input"]]
            cost = (PER_IMAGE if image else PER_TEXT) * len(inputs)
            self.meter.inputs.update(inputs)
            self.meter.money += cost
            usage = {"images": len(inputs) * image, "text_inputs": len(inputs) * (not image), "cost": str(cost)}
            rows = [answer_to(content) for content in inputs]
            if request["encoding_format"] == "base64":
                data = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]
            else:
                data = [row.tolist() for row in rows]
            listed = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(data)]
            answer = json.dumps({"object": "list", "model": "clip", "data": listed, "usage": usage}).encode()
            self.answers_by_key[key] = (hashlib.sha256(body).digest(), answer)
            return answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    vendor: UnreliableVendor

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        if self.authorised():
            self.reply(200, json.dumps(self.vendor.models()).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        vendor, meter = self.vendor, self.vendor.meter
        with vendor.lock:
            meter.requests += 1
            meter.headers.append({k.lower(): v for k, v in self.headers.items()})
            fault = vendor.fault()
            meter.faults[fault or "none"] += 1
            vendor.in_flight += 1
            meter.most_in_flight = max(meter.most_in_flight, vendor.in_flight)
        try:
            if self.authorised():
                self.answer(body, fault)
        finally:
            with vendor.lock:
                vendor.in_flight -= 1

    def answer(self, body: bytes, fault: str) -> None:
        if fault.isdigit():
            error = {"message": f"told to say {fault}", "type": "x", "param": None, "code": "x"}
            self.reply(int(fault), json.dumps({"error": error}).encode(), self.vendor.extra)
            return
        if fault == "drop":
            self.close_connection = True
            return
        time.sleep(self.vendor.work)
        if any(base64.b64encode(image) in body for image in self.vendor.rejects):
            error = {"message": "an image violates the policy", "code": "policy"}
            self.reply(422, json.dumps({"error": error}).encode())
            return
        answer = self.vendor.embed(body, self.headers.get("idempotency-key", ""))
        if fault == "timeout":
            time.sleep(self.vendor.hang)
            self.close_connection = True
        elif fault == "cut":
            self.reply(200, answer, cut=len(answer) * 2 // 3)
        elif fault in ("order", "nan", "short", "wide"):
            self.reply(200, json.dumps(spoil(json.loads(answer), fault, self.vendor.random)).encode())
        else:
            self.reply(200, answer)

    def authorised(self) -> bool:
        authorization = self.headers.get("authorization", "")
        if not self.vendor.key or authorization == f"Bearer {self.vendor.key}":
            return True
        # A careless vendor that repeats the key in its message.
        self.reply(
            401, json.dumps({"error": {"message": f"Incorrect key provided: {authorization}", "code": "key"}}).encode()
        )
        return False

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True


def spoil(answer: dict[str, Any], fault: str, rng: random.Random) -> dict[str, Any]:
    """Spoil an answer: shuffle its rows, insert a NaN, remove a row or add a number."""
    rows = answer["data"]
    if fault == "order":
        rng.shuffle(rows)
    elif fault == "nan":
        rows[rng.randrange(len(rows))]["embedding"] = [float("nan")] * DIMENSION
    elif fault == "short":
        rows.pop()
    else:
        for row in rows:
            row["embedding"] = [1.0] * (DIMENSION + 1)
    return answer
