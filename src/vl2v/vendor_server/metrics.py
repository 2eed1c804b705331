"""Prometheus metrics of a running service, without keys or client names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of a service, in their own registry."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.answers = Counter("vl2v_http_answers", "HTTP responses", ["route", "status"], registry=registry)
        self.seconds = Histogram("vl2v_http_seconds", "Seconds from request to response", ["route"], registry=registry)
        self.billed = Counter("vl2v_billed_inputs", "Inputs billed", ["kind"], registry=registry)
        self.money = Counter("vl2v_billed_money", "Money billed", ["currency"], registry=registry)
        self.replays = Counter("vl2v_replays", "Responses repeated for an idempotency key", registry=registry)
        self.batches = Histogram("vl2v_batch_size", "Inputs of a batch", ["kind"], buckets=SIZES, registry=registry)
        self.queue = Gauge("vl2v_queue_inputs", "Inputs that are queued or being embedded", registry=registry)
        self.held = Gauge("vl2v_held_bytes", "Bytes of requests in memory", registry=registry)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
