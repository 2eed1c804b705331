"""The implementation of the routes: decode images, classify them, change classes."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from vl2v.errors import StudentError, Vl2vError
from vl2v.serve.engine import Engine, Outputs
from vl2v.serve.gallery import Gallery
from vl2v.serve.inputs import Upload, read
from vl2v.serve.metrics import Metrics
from vl2v.serve.schemas import DriftHint, ImageAnswer, ModelInfo, Prediction, fault, rank
from vl2v.serve.source import Source
from vl2v.web.body import BodyMemory
from vl2v.web.faults import ApiError, bad_image, schema
from vl2v.web.images import MORE, inspect
from vl2v.web.limits import Limits
from vl2v_runtime import Model, UnreadableImageError
from vl2v_runtime.errors import ModelError
from vl2v_runtime.imaging import Pixels
from vl2v_runtime.trust import CONFIDENCE, NEGATIVES, SCORES

if TYPE_CHECKING:
    from vl2v.serve.editing import RunEditor  # it imports torch, which predictions do not need

logger = logging.getLogger("vl2v.serve")
T = TypeVar("T")
THREADS = 8  # requests that are processed at once; decoding and the network have their own limits


@dataclass(frozen=True)
class Options:
    """Options of a prediction request.

    Attributes:
        top_k: number of classes to return per image.
        coverage: coverage in (0, 1] whose threshold accepted predictions reach; None skips the check.
        score: the score that is compared with the threshold.
        neighbours: number of similar training images to return per image.
    """

    top_k: int = 5
    coverage: float | None = None
    neighbours: int = 0
    score: str = CONFIDENCE


class Service:
    """The service of one student.

    Args:
        about: returns the description of a model.
        gallery: training images to show next to predictions.
        editor: adds and removes classes; None if classes cannot be changed.
        source: file of the model, which is reloaded when another program changes it.
    """

    def __init__(
        self,
        model: Model,
        about: Callable[[Model], ModelInfo],
        gallery: Gallery | None,
        editor: RunEditor | None,
        limits: Limits,
        source: Source,
    ) -> None:
        self.limits, self.metrics, self.gallery = limits, Metrics(), gallery
        self.body_memory, self.waiting = BodyMemory(), 0
        self.engine = Engine(model, self._observe)
        self._about, self._editor, self._source = about, editor, source
        self._executor = ThreadPoolExecutor(THREADS, "requests")
        self._edits = ThreadPoolExecutor(1, "edits")  # one edit at a time
        self._decoding = threading.Semaphore(os.cpu_count() or 1)  # decoding a large image takes much memory
        self.metrics.held.set_function(lambda: self.body_memory.bytes)
        self.metrics.waiting.set_function(lambda: self.waiting)
        self.metrics.classes.set_function(lambda: len(self.engine.model.metadata.classes))

    def stop(self) -> None:
        """Finish the requests in flight and stop."""
        self._executor.shutdown()
        self._edits.shutdown()

    def _observe(self, images: int, seconds: float) -> None:
        self.metrics.batches.observe(images)
        self.metrics.inference.observe(seconds)

    async def in_executor(self, work: Callable[[], T]) -> T:
        """Run a function outside the event loop.

        Raises:
            ApiError: 503 if too many requests are waiting.
        """
        if self.waiting >= self.limits.queue:
            raise ApiError(
                503, "overloaded", "Too many requests are queued; retry after the time in retry-after.", retry_after=1
            )
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self.waiting -= 1

    async def refresh(self) -> None:
        """Reload the model if another program has changed its file; an unusable file is logged and ignored."""
        if self._source.changed():
            await asyncio.get_running_loop().run_in_executor(self._edits, self._reload)

    def _reload(self) -> None:
        if not self._source.changed():  # another request has already reloaded it
            return
        try:
            model = self._source.load()
            new, old = (f"{m.size} pixels, {m.fit}" for m in (model, self.engine.model))
            if new != old:
                problem, step = "The new file has another image size or fit.", "restart vl2v serve"
                raise StudentError(problem, expected=old, found=new, next_step=step)
            self.engine.model = model
            logger.info("the model's file changed: %d classes", len(model.metadata.classes))
        except (ModelError, Vl2vError, OSError) as error:
            logger.error("the model's file changed and cannot be used; the previous one remains in use: %s", error)

    def about(self) -> ModelInfo:
        """Return the description of the served student."""
        return self._about(self.engine.model)

    def check(self) -> None:
        """Run the network on a grey image; raises an error if it fails."""
        size = self.engine.model.size
        self.engine.run(np.full((1, size, size, 3), 128, np.uint8))

    def predict(self, content_type: str, body: bytes, options: Options) -> bytes:
        """Process `POST /v1/predict`; returns the JSON of a `Prediction`.

        Raises:
            ApiError: if the whole request is invalid.
        """
        started = time.perf_counter()
        self._check_coverage(options.coverage, options.score)
        uploads = read(content_type, body, self.limits)
        outcomes = [self._pixels(upload) for upload in uploads]
        good = [outcome for outcome in outcomes if not isinstance(outcome, ApiError)]
        outputs = self.engine.run(np.stack(good)) if good else None
        answered = iter(self._worded(outputs, options) if outputs else ())
        answers = []
        for upload, outcome in zip(uploads, outcomes, strict=True):
            if isinstance(outcome, ApiError):
                answers.append(ImageAnswer(name=upload.name, error=fault(outcome)))
            else:
                answers.append(next(answered).model_copy(update={"name": upload.name}))
        self.metrics.images.labels("answered").inc(len(good))
        self.metrics.images.labels("unreadable").inc(len(outcomes) - len(good))
        spent = round(1000 * (time.perf_counter() - started), 2)
        return Prediction(answers=answers, drift=_drift(outputs), milliseconds=spent).model_dump_json().encode()

    def _check_coverage(self, coverage: float | None, score: str) -> None:
        trust = self.engine.model.trust
        scores = trust.available if trust else ()
        if score not in (scores or SCORES):
            more = (
                "" if NEGATIVES in scores else f" The score {NEGATIVES} needs negative texts: vl2v trust RUN --reject."
            )
            raise schema(f"Expected one of {', '.join(scores or SCORES)}.{more}", "score")
        coverages = trust.coverages if trust else ()
        if coverage is not None and coverage not in (1.0, *coverages):
            expected = ", ".join(f"{share:g}" for share in coverages)
            message = f"Expected one of {expected}." if coverages else "This student has no thresholds; omit it."
            raise schema(message, "coverage")

    def _pixels(self, upload: Upload) -> Pixels | ApiError:
        if upload.fault is not None:
            return upload.fault
        try:
            inspect(upload.data, None, self.limits, MORE)
            with self._decoding:
                return self.engine.model.prepare(upload.data)
        except ApiError as error:
            return error
        except UnreadableImageError as error:
            return bad_image(f"The image cannot be read: {error}.")

    def _worded(self, outputs: Outputs, options: Options) -> list[ImageAnswer]:
        trust, classes = outputs.model.trust, outputs.model.classes
        chances = outputs.model.chances(outputs.logits)
        accepted: list[bool | None] = [None] * len(chances)
        if trust and options.coverage is not None:
            sure_rows = trust.accepts(outputs.logits, options.score, options.coverage, outputs.embeddings)
            accepted = [bool(sure) for sure in sure_rows]
        answers = [rank(row, classes, options.top_k, sure) for row, sure in zip(chances, accepted, strict=True)]
        if options.neighbours and self.gallery is not None and outputs.embeddings is not None:
            for answer, near in zip(answers, self.gallery.nearest(outputs.embeddings, options.neighbours), strict=True):
                answer.neighbours = near
        return answers

    async def edit(self, work: Callable[[RunEditor], T], kind: str = "") -> T:
        """Run an edit of the classes, one at a time; later requests use the changed model.

        Args:
            kind: name of the edit in the metrics; empty if the classes do not change.

        Raises:
            ApiError: 403 if classes cannot be changed.
        """
        editor = self._editor
        if editor is None:
            raise ApiError(403, "no_edits", self.about().no_edits or "Classes cannot be changed here.")
        return await asyncio.get_running_loop().run_in_executor(self._edits, self._edit, editor, work, kind)

    def _edit(self, editor: RunEditor, work: Callable[[RunEditor], T], kind: str) -> T:
        done = work(editor)
        if kind:
            self.engine.model = self._source.load()
            self.metrics.edits.labels(kind).inc()
        return done


def _drift(outputs: Outputs | None) -> DriftHint | None:
    if outputs is None or outputs.model.trust is None or outputs.embeddings is None:
        return None
    drift = outputs.model.trust.drift(outputs.embeddings)
    return DriftHint.of(drift) if drift else None
