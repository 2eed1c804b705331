"""Prometheus metrics of a served student."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SIZES = (1, 2, 4, 8, 16, 32, 64)
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """The counters of a service, in their own registry."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.answers = Counter("vl2v_http_answers", "HTTP responses", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "vl2v_http_seconds", "Seconds from request to response", ["route"], buckets=SECONDS, registry=registry
        )
        self.images = Counter("vl2v_serve_images", "Images by outcome", ["outcome"], registry=registry)
        self.batches = Histogram("vl2v_serve_batch_size", "Images of a batch", buckets=SIZES, registry=registry)
        self.inference = Histogram(
            "vl2v_serve_inference_seconds", "Seconds of a batch in the network", buckets=SECONDS, registry=registry
        )
        self.edits = Counter("vl2v_serve_class_edits", "Classes added and removed", ["kind"], registry=registry)
        self.classes = Gauge("vl2v_serve_classes", "Classes known", registry=registry)
        self.waiting = Gauge("vl2v_serve_requests_waiting", "Requests read or worked on", registry=registry)
        self.held = Gauge("vl2v_held_bytes", "Bytes of requests in memory", registry=registry)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
