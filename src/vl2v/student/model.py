"""The student: a backbone, a projection to the teacher's embedding space, and a text head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from vl2v.errors import StudentError
from vl2v.hints import did_you_mean, some_of
from vl2v.student.backbones import Backbone, Recipe
from vl2v.student.preprocess import Preprocess
from vl2v_runtime.inputs import Input, batches, each
from vl2v_runtime.metadata import fault_of_class
from vl2v_runtime.trust import Trust


def cosine_logits(projected: Tensor, head: Tensor, logit_scale: float) -> Tensor:
    """Return the [B, K] logits s * cos(P(f(x)), T_k), in [-s, s] (Predict, stage 3 of arXiv 2310.08255).

    Args:
        projected: [B, D] floating point, P(f(x)), with rows of any length. A zero row has logits 0.
        head: [K, D], one text embedding per class, with rows of any length.
        logit_scale: s > 0, the scale of the teacher, or the one that the method vl2v has trained.
    """
    return logit_scale * F.normalize(projected, dim=-1) @ F.normalize(head, dim=-1).T


class Student(nn.Module):
    """Image classifier in the embedding space of a teacher.

    A baseline with a linear head has no text head: its last layer returns the logits.

    Args:
        backbone: f and its preprocessing.
        projection: P, maps [B, F] to [B, D], or to [B, K] logits if there is no text head.
        head: [K, D] text embeddings of the classes. None for a linear head.
        classes: K class names, in the order of the head.
        logit_scale: the scale of the teacher, or the one that the method vl2v has trained.
        provenance: versions, seeds, teacher and data of the run.
        offsets: [K] finite numbers that are added to the logits; None for zeros. Classes that are added after training
            have one, see `vl2v.evaluation.offset`. Only with a text head.

    Attributes:
        trust: temperature, thresholds and drift reference, fitted at the end of a run. None before that, or without
            validation images.

    Raises:
        StudentError: if the shapes are inconsistent.
    """

    head: Tensor | None

    def __init__(
        self,
        backbone: Backbone,
        projection: nn.Module,
        head: Tensor | None,
        classes: Sequence[str],
        logit_scale: float,
        provenance: dict[str, Any] | None = None,
        offsets: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone.module
        self.projection = projection
        self.features = backbone.features
        self.preprocess: Preprocess = backbone.preprocess
        self.recipe: Recipe = backbone.recipe
        self.register_buffer("head", None if head is None else F.normalize(head.detach().float(), dim=-1))
        self.classes = list(classes)
        self.logit_scale = float(logit_scale)
        self.provenance: dict[str, Any] = dict(provenance or {})
        self.trust: Trust | None = None
        self.offsets = [0.0] * len(self.classes) if offsets is None else [float(offset) for offset in offsets]
        count, shape = len(self.classes), [len(self.classes), 1] if self.head is None else list(self.head.shape)
        if len(shape) != 2 or shape[0] != count or len(set(self.classes)) != count:
            expected = f"[{count}, D] text embeddings and as many different class names"
            step = "pass one text embedding for every class"
            raise StudentError("Head and classes do not match.", expected=expected, found=str(shape), next_step=step)
        fitting = len(self.offsets) == count and bool(np.isfinite(self.offsets).all())
        if not fitting or (self.head is None and any(self.offsets)):
            expected = f"{count} finite offsets, all of them 0 without a text head"
            problem, found = "Offsets and classes do not match.", str(self.offsets)[:100]
            raise StudentError(problem, expected=expected, found=found, next_step="pass one offset for every class")

    @property
    def dimension(self) -> int:
        """D, the dimension of the teacher's embedding space, or K without a text head."""
        return len(self.classes) if self.head is None else int(self.head.shape[1])

    @property
    def device(self) -> torch.device:
        """Device of the student."""
        return next((tensor.device for tensor in self.state_dict().values()), torch.device("cpu"))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map normalised pixels [B, 3, S, S] to projections [B, D], not normalised."""
        projected: Tensor = self.projection(self.backbone(inputs))
        return projected

    def embed(self, images: Input | Iterable[Input], batch_size: int = 64) -> NDArray[np.float32]:
        """Embed images in the teacher's space, [N, D] float32 with rows of length one.

        Args:
            images: one or several paths, folders, files as bytes, binary streams or PIL images.
            batch_size: number of images per batch, 1 or more.

        Raises:
            UnreadableImageError: if an image cannot be read.
            ValueError: if the batch size is below 1.
            StudentError: if the student has no text head.
        """
        self._head()
        return self.embeddings(self.project(images, batch_size)).cpu().numpy()

    def predict_proba(self, images: Input | Iterable[Input], batch_size: int = 64) -> NDArray[np.float32]:
        """Return class probabilities, [N, K] float32. Rows sum to 1; columns are in the order of `classes`.

        If the student has a `trust`, the logits are divided by its temperature.
        """
        temperature = self.trust.temperature if self.trust else 1.0
        logits = self.logits(self.project(images, batch_size)) / temperature
        return logits.softmax(-1).cpu().numpy()

    def predict(self, images: Input | Iterable[Input], batch_size: int = 64) -> list[str]:
        """Return the most probable class name of each image."""
        return [self.classes[k] for k in self.predict_proba(images, batch_size).argmax(axis=1)]

    def project(self, images: Input | Iterable[Input], batch_size: int = 64) -> Tensor:
        """Map images to projections, [N, D] float32, not normalised, for `logits` and `embeddings`."""
        pixels = map(self.preprocess.pixels, each(images))
        rows = [self.project_pixels(torch.stack(batch)) for batch in batches(pixels, batch_size)]
        return torch.cat(rows) if rows else torch.zeros(0, self.dimension, device=self.device)

    @torch.no_grad()
    def project_pixels(self, pixels: Tensor) -> Tensor:
        """Map uint8 pixels [N, 3, S, S] from `preprocess.pixels` to projections, [N, D] float32."""
        was_training = self.training
        self.eval()
        parts = self.preprocess.parts(pixels)
        projected = [self.forward(self.preprocess.normalise(part.to(self.device))).float() for part in parts]
        self.train(was_training)
        return torch.cat(projected)

    def embeddings(self, projected: Tensor) -> Tensor:
        """Normalise projections [B, D] to length one.

        Raises:
            StudentError: if the student has no text head.
        """
        self._head()
        return F.normalize(projected.float(), dim=-1)

    def logits(self, projected: Tensor) -> Tensor:
        """Map projections [B, D] to logits [B, K]. Without a text head, the projections are the logits."""
        projected = projected.float()
        if self.head is None:
            return projected
        logits = cosine_logits(projected, self.head, self.logit_scale)
        return logits + logits.new_tensor(self.offsets) if any(self.offsets) else logits

    def add_class(self, name: str, vector: ArrayLike, offset: float = 0.0) -> None:
        """Add a class without training: its text embedding becomes a row of the head.

        Args:
            vector: [D], the teacher's embedding of its prompt, with any length above 0.
            offset: finite number that is added to the logit of the class.

        Raises:
            StudentError: if the name is not valid or exists, the embedding is not valid, or there is no text head.
        """
        head = self._head()
        try:
            row = torch.as_tensor(np.asarray(vector).astype(np.float32, casting="same_kind"), device=head.device)
        except (TypeError, ValueError) as error:
            problem, expected = "The embedding cannot be used for a class.", f"{self.dimension} real numbers"
            step = "embed the prompt with the teacher of this student"
            raise StudentError(problem, expected=expected, found=str(error)[:200], next_step=step) from error
        if fault := fault_of_class(name):
            problem, step = "The name cannot be used for a class.", "choose another name"
            raise StudentError(problem, expected="a text without control characters", found=fault, next_step=step)
        if name in self.classes:
            problem, step = f"The class '{name}' exists already.", "choose another name"
            raise StudentError(problem, expected="a new name", found=name, next_step=step)
        if row.shape != (self.dimension,) or not torch.isfinite(row).all() or row.norm() < 1e-6:
            expected = f"a finite vector [{self.dimension}] of norm above 0"
            step = "embed the prompt with the teacher of this student"
            raise StudentError(
                "The embedding cannot be used for a class.", expected=expected, found=f"{row.shape}", next_step=step
            )
        if not np.isfinite(offset):
            problem, step = "The offset cannot be used.", "pass a finite offset, such as 0"
            raise StudentError(problem, expected="a finite number", found=str(offset), next_step=step)
        self.head = torch.cat([head, F.normalize(row, dim=0)[None]])
        self.classes.append(name)
        self.offsets.append(float(offset))

    def remove_class(self, name: str) -> None:
        """Remove a class and its row of the head. At least one class must remain.

        Raises:
            StudentError: if the name is unknown or the last one, or there is no text head.
        """
        head = self._head()
        if name not in self.classes:
            expected = f"one of {some_of(self.classes)}"
            step = f"list all classes with vl2v classes list{did_you_mean(str(name), self.classes)}"
            raise StudentError(f"There is no class '{name}'.", expected=expected, found=name, next_step=step)
        if len(self.classes) == 1:
            problem, step = f"'{name}' is the only class.", "add another class first"
            raise StudentError(problem, expected="at least one remaining class", found="none", next_step=step)
        index = self.classes.index(name)
        self.head = torch.cat([head[:index], head[index + 1 :]])
        self.classes.pop(index)
        self.offsets.pop(index)

    def save(self, folder: str | Path) -> Path:
        """Save the student to a folder of safetensors and JSON; see `vl2v.student.files`."""
        from vl2v.student.files import save

        return save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, backbone: nn.Module | None = None, device: str = "cpu") -> Student:
        """Load a student from its folder, in eval mode.

        Args:
            folder: a folder written by `save`, or a run folder.
            backbone: the architecture, if it is a custom module.
        """
        from vl2v.student.files import load

        return load(Path(folder), backbone).to(device)

    def _head(self) -> Tensor:
        if self.head is None:
            raise StudentError(
                "This student is not in the teacher's embedding space.",
                expected="a student with a text head",
                found="a student with a linear head",
                next_step="train one with the default method of vl2v distill",
            )
        return self.head
