"""Network of an exported file on onnxruntime."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from vl2v_runtime.errors import ModelError
from vl2v_runtime.fits import Fit
from vl2v_runtime.imaging import Pixels
from vl2v_runtime.metadata import AGAIN, COSINE, KEY, Metadata
from vl2v_runtime.session import MEMORY, first_run, is_out_of_memory, open_session, within
from vl2v_runtime.trust import Trust

if TYPE_CHECKING:
    from onnxruntime import RunOptions

T = TypeVar("T")
Floats = NDArray[np.float32]

INPUT, LOGITS, EMBEDDING, HEAD = "pixels", "logits", "embedding", "head"
FLOATS = "tensor(float)"  # onnxruntime's name of float32
PATIENCE = 120.0  # seconds to open a file, and for the first image


class _TooLargeError(ModelError):
    """The results of the nodes do not fit into the memory."""


class Network:
    """The network and the metadata of an ONNX file that vl2v exported; arguments and errors are those of `Model`."""

    def __init__(self, path: str | Path, threads: int | None = None, spinning: bool = True) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"expected 1 thread or more, found {threads}")
        self.path = Path(path)
        self._most = sys.maxsize  # images known to fit into the memory at a time
        self._session = self._in_time("open it", lambda: open_session(self.path, threads, spinning))
        text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        self.metadata = Metadata.from_json(text, str(path))
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._check()
        self._mean = np.array(self.metadata.mean, np.float32).reshape(3, 1, 1)
        self._std = np.array(self.metadata.std, np.float32).reshape(3, 1, 1)
        self._try_out()

    @property
    def classes(self) -> list[str]:
        """K class names, in the order of the columns of the logits."""
        return list(self.metadata.classes)

    @property
    def size(self) -> int:
        """Side length of the input in pixels."""
        return self.metadata.size

    @property
    def fit(self) -> Fit:
        """Way to make an image square: squash, crop or pad."""
        return self.metadata.fit

    @cached_property
    def dimension(self) -> int | None:
        """D, dimension of the embedding space shared with the teacher; None for a linear classifier."""
        sizes = [output.shape[1] for output in self._session.get_outputs() if output.name == EMBEDDING]
        return int(sizes[0]) if sizes else None

    @cached_property
    def trust(self) -> Trust | None:
        """Trust data, fitted at the end of the run; None if the file has none.

        Raises:
            ModelError: if they are invalid.
        """
        if self.metadata.trust is None:
            return None
        try:
            trust = Trust.from_dict(self.metadata.trust)
            trust.check_dimension(self.dimension)
            return trust
        except ValueError as error:
            raise ModelError(
                f"{self.path} has broken metadata.", expected="valid trust data", found=str(error), next_step=AGAIN
            ) from error

    def run(self, pixels: Floats) -> tuple[Floats, Floats | None]:
        """Run the network on a batch.

        Args:
            pixels: [B, 3, S, S] float32, normalised, B at least 1.

        Returns:
            Logits [B, K] float32, not divided by any temperature, and embeddings [B, D] float32 with rows of length
            one, None for a linear classifier.

        Raises:
            ModelError: if the network fails, for example if one image needs more memory than `MEMORY` (a batch that
                needs more is divided), or if an output is not finite.
        """
        most = min(len(pixels), self._most)
        try:
            parts = [self._run(pixels[start : start + most]) for start in range(0, max(len(pixels), 1), max(most, 1))]
        except _TooLargeError:
            if most <= 1:
                raise
            self._most = (most + 1) // 2
            return self.run(pixels)
        embeddings = [embedding for _, embedding in parts if embedding is not None]
        return np.concatenate([logits for logits, _ in parts]), np.concatenate(embeddings) if embeddings else None

    def normalise(self, pixels: Pixels) -> Floats:
        """Normalise pixels as in training, from [B, S, S, 3] uint8 to the network's input, [B, 3, S, S] float32."""
        planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
        planes /= np.float32(255)
        planes -= self._mean
        planes /= self._std
        return planes

    def _run(self, pixels: Floats, options: RunOptions | None = None) -> tuple[Floats, Floats | None]:
        try:
            outputs = self._session.run(self._outputs, {INPUT: pixels}, options)
        except Exception as error:  # onnxruntime raises private types
            text = " ".join(str(error).split())
            if is_out_of_memory(error):
                raise _TooLargeError(
                    f"{self.path} needs too much memory.",
                    expected=f"at most {MEMORY / 2**30:g} GiB of results while it classifies {len(pixels)} images",
                    found=text[-300:],
                    next_step="if the file is yours, export a smaller student",
                ) from error
            expected = "a network that runs"
            raise ModelError(
                f"{self.path} cannot be used.", expected=expected, found=text[:300], next_step=AGAIN
            ) from error
        by_name = dict(zip(self._outputs, outputs, strict=True))
        if wrong := [name for name, rows in by_name.items() if not np.isfinite(rows).all()]:
            self._contradicts(f"{wrong[0]} that are not finite")
        return by_name[LOGITS], by_name.get(EMBEDDING)

    def _check(self) -> None:
        """Check that the graph has the inputs and outputs that the metadata describe."""
        card = self.metadata
        output_names = {LOGITS, EMBEDDING} if card.classifier == COSINE else {LOGITS}
        inputs = [(i.name, i.type, *(i.shape or ())[1:]) for i in self._session.get_inputs()]
        outputs = {o.name: (o.type, *(o.shape or ())[1:]) for o in self._session.get_outputs()}
        right = inputs == [(INPUT, FLOATS, 3, card.size, card.size)] and outputs.keys() == output_names
        right = right and all(len(form) == 2 and form[0] == FLOATS for form in outputs.values())
        right = right and isinstance(outputs.get(EMBEDDING, (FLOATS, 1))[1], int)
        if not right or outputs[LOGITS][1] != len(card.classes):
            self._contradicts(f"{inputs} to {outputs}"[:300])

    def _try_out(self) -> None:
        """Classify a white image within a time limit, and read the trust data, so that loading detects broken files."""
        white = np.full((1, self.size, self.size, 3), 255, np.uint8)
        pixels, options = self.normalise(white), first_run()
        logits, embeddings = self._in_time(
            "classify one image", lambda: self._run(pixels, options), lambda: setattr(options, "terminate", True)
        )
        if logits.shape != (1, len(self.classes)):
            self._contradicts(f"logits {list(logits.shape)} for one image")
        if embeddings is not None and embeddings.shape != (1, self.dimension):
            self._contradicts(f"embeddings {list(embeddings.shape)} for one image")
        _ = self.trust

    def _in_time(self, what: str, work: Callable[[], T], give_up: Callable[[], object] = lambda: None) -> T:
        try:
            return within(PATIENCE, work, give_up)
        except TimeoutError as error:
            raise ModelError(
                f"{self.path} is too slow.",
                expected=f"at most {PATIENCE:g} s to {what}",
                found="no end by then",
                next_step="if the file is yours, export a smaller student, or use a faster machine",
            ) from error

    def _contradicts(self, found: str) -> NoReturn:
        size, classes = self.size, len(self.metadata.classes)
        expected = f"{INPUT} [B, 3, {size}, {size}] to {LOGITS} [B, {classes}]"
        raise ModelError(f"{self.path} is inconsistent.", expected=expected, found=found, next_step=AGAIN)
