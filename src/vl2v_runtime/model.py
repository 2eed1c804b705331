"""Image classifier from an exported file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vl2v_runtime.errors import ModelError
from vl2v_runtime.imaging import ImageLike, Pixels, UnreadableImageError, decode, square
from vl2v_runtime.inputs import Input, ahead, batches, each
from vl2v_runtime.names import quoted, shown
from vl2v_runtime.network import Floats, Network
from vl2v_runtime.trust import CONFIDENCE, Trust, probabilities

FLOAT, INT8 = "model.onnx", "model.int8.onnx"
BATCH = 32
AHEAD = 2  # batches decoded while another one is in the network; more would only need memory


@dataclass(frozen=True)
class Answer:
    """The prediction for one image.

    Attributes:
        label: the most probable class.
        confidence: its probability, in [0, 1].
        probabilities: probability of each class, in [0, 1]. They sum to 1.
        accepted: whether the score reaches the threshold; None without a coverage or thresholds.
    """

    label: str
    confidence: float
    probabilities: dict[str, float]
    accepted: bool | None


@dataclass(frozen=True)
class Attempt:
    """The result for an image that may be unreadable.

    Attributes:
        answer: the prediction; None if the image could not be read.
        embedding: [D] float32 of length one; None if the image could not be read, or for a linear classifier.
        fault: why the image could not be read, or empty.
    """

    answer: Answer | None
    embedding: Floats | None = None
    fault: str = ""


class Model(Network):
    """An image classifier from an ONNX file that vl2v exported.

    Args:
        threads: number of CPU threads; None leaves the choice to onnxruntime, which uses all cores.
        spinning: whether threads spin while they wait for each other; disable it next to other work.

    Raises:
        ValueError: if the number of threads is below 1.
        ModelError: if the file is missing, broken, not exported by vl2v, or onnxruntime is not installed.
    """

    def prepare(self, image: ImageLike) -> Pixels:
        """Decode and resize an image as in training, to [S, S, 3] uint8.

        Raises:
            UnreadableImageError: if it is not a usable image.
            OSError: if a path cannot be read.
        """
        return square(decode(image), self.size, self.fit)

    def logits(self, images: Input | Iterable[Input], batch_size: int = BATCH) -> Floats:
        """Compute logits, [N, K] float32, which are not divided by any temperature.

        Args:
            images: one or several paths, folders, files as bytes, binary streams or PIL images.
            batch_size: number of images per batch.

        Raises:
            UnreadableImageError: if an image is not usable.
            OSError: if a path cannot be read.
            ValueError: if the batch size is below 1.
        """
        rows = [logits for logits, _ in self._passed(images, batch_size)]
        return np.concatenate(rows) if rows else np.zeros((0, len(self.metadata.classes)), np.float32)

    def embed(self, images: Input | Iterable[Input], batch_size: int = BATCH) -> Floats:
        """Compute embeddings in the teacher's space, [N, D] float32 with rows of length one.

        Arguments and errors are those of `logits`.

        Raises:
            ModelError: if the model has a linear classifier.
        """
        if self.dimension is None:
            raise ModelError(
                f"{self.path} is not in the teacher's embedding space.",
                expected="a student with a text head",
                found="a baseline with a linear classifier",
                next_step="export a student with a text head, which the default method trains",
            )
        rows = [embedding for _, embedding in self._passed(images, batch_size) if embedding is not None]
        return np.concatenate(rows) if rows else np.zeros((0, self.dimension), np.float32)

    def probabilities(self, images: Input | Iterable[Input], batch_size: int = BATCH) -> Floats:
        """Compute class probabilities, [N, K] float32 with rows that sum to 1, calibrated if the file has a `trust`.

        Arguments and errors are those of `logits`.
        """
        return self.chances(self.logits(images, batch_size))

    def predict(
        self,
        images: Input | Iterable[Input],
        batch_size: int = BATCH,
        *,
        score: str = CONFIDENCE,
        coverage: float = 0.95,
    ) -> list[Answer]:
        """Classify images.

        Args:
            images: see `logits`.
            batch_size: number of images per batch.
            score: ``confidence``, ``energy``, or ``negatives`` if the file has negative texts.
            coverage: fraction of the validation images that is accepted; see `Trust.accepts`.

        Raises:
            UnreadableImageError: if an image is not usable.
            OSError: if a path cannot be read.
            ValueError: if the batch size is below 1, or the file has no threshold for this score and coverage.
        """
        answers: list[Answer] = []
        for logits, embeddings in self._passed(images, batch_size):
            answers += self.answers(logits, score=score, coverage=coverage, embeddings=embeddings)
        return answers

    def answers(
        self, logits: Floats, *, score: str = CONFIDENCE, coverage: float = 0.95, embeddings: Floats | None = None
    ) -> list[Answer]:
        """Return the predictions for [N, K] logits. ``negatives`` also needs [N, D] embeddings. See `predict`."""
        return answers_of(self.trust, self.metadata.classes, logits, embeddings, score, coverage)

    def attempts(
        self,
        images: Input | Iterable[Input],
        batch_size: int = BATCH,
        *,
        score: str = CONFIDENCE,
        coverage: float = 0.95,
    ) -> Iterator[Attempt]:
        """Classify images, and report unreadable ones instead of raising an error. Arguments are those of `predict`.

        Raises:
            ValueError: see `predict`.
        """
        for batch in batches(ahead(self._try, each(images), AHEAD * batch_size), batch_size):
            good = [pixels for pixels in batch if not isinstance(pixels, str)]
            done: Iterator[tuple[Answer, Floats | None]] = iter(())
            if good:
                logits, embeddings = self.run(self.normalise(np.stack(good)))
                rows = embeddings if embeddings is not None else [None] * len(good)
                answers = self.answers(logits, score=score, coverage=coverage, embeddings=embeddings)
                done = zip(answers, rows, strict=True)
            for pixels in batch:
                yield Attempt(None, fault=pixels) if isinstance(pixels, str) else Attempt(*next(done))

    def _try(self, image: ImageLike) -> Pixels | str:
        """Return the pixels, or why the image cannot be read."""
        try:
            return self.prepare(image)
        except UnreadableImageError as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)

    def chances(self, logits: Floats) -> Floats:
        """Convert [N, K] logits to class probabilities, [N, K] float32, calibrated if the file has a `trust`."""
        return probabilities(logits, self.trust.temperature if self.trust else 1.0)

    def _passed(self, images: Input | Iterable[Input], batch_size: int) -> Iterator[tuple[Floats, Floats | None]]:
        for batch in batches(ahead(self.prepare, each(images), AHEAD * batch_size), batch_size):
            yield self.run(self.normalise(np.stack(batch)))


def answers_of(
    trust: Trust | None,
    names: Sequence[str],
    logits: Floats,
    embeddings: Floats | None = None,
    score: str = CONFIDENCE,
    coverage: float | None = None,
) -> list[Answer]:
    """Return the predictions for [N, K] logits of the classes `names`.

    Args:
        trust: temperature and thresholds; None if the student has none.
        embeddings: [N, D] float32, for the score ``negatives``.
        coverage: see `Trust.accepts`; None accepts or rejects nothing.
    """
    chances = probabilities(logits, trust.temperature if trust else 1.0)
    if chances.shape[1] != len(names):
        raise ValueError(f"expected logits [N, {len(names)}], found shape {list(chances.shape)}")
    accepted: list[bool | None] = [None] * len(logits)
    if trust is not None and coverage is not None:
        accepted = trust.accepts(logits, score, coverage, embeddings).tolist()
    return [
        Answer(names[k], float(row[k]), dict(zip(names, map(float, row), strict=True)), sure)
        for row, k, sure in zip(chances, chances.argmax(axis=1), accepted, strict=True)
    ]


def load(path: str | Path, *, threads: int | None = None, int8: bool | None = None, spinning: bool = True) -> Model:
    """Open an exported model.

    Args:
        path: an .onnx file, the folder that `vl2v export` wrote, or the folder of the run.
        threads: number of CPU threads; None leaves the choice to onnxruntime, which uses all cores.
        int8: whether to use the quantised file of a folder; None uses the float32 file.
        spinning: see `Model`.

    Raises:
        ModelError: if it is missing or cannot be used.
    """
    path = Path(path)
    if path.is_dir():
        name = INT8 if int8 else FLOAT
        nested, folder = path / "export", path
        path = (nested if nested.is_dir() and not (path / name).is_file() else path) / name
        if not path.is_file():
            run = quoted(folder) if (folder / "student").is_dir() else "RUN"
            raise ModelError(
                f"{shown(folder)} contains no {name}.",
                expected="an exported model",
                found="no such file",
                next_step=f"export the student: vl2v export {run}{' --int8' if int8 else ''}",
            )
    return Model(path, threads, spinning)
