"""The student: a backbone, a projection into the teacher's space, and class-name embeddings as the head."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from vl2v.errors import StudentError
from vl2v.student.backbones import Backbone, Recipe
from vl2v.student.preprocess import Preprocess
from vl2v_runtime.inputs import Input, each
from vl2v_runtime.trust import Trust


def cosine_logits(projected: Tensor, head: Tensor, logit_scale: float) -> Tensor:
    """s * cos(P(f(x)), T_k): Predict, stage 3 of arXiv 2310.08255.

    Args:
        projected: [B, D] floating, P(f(x)), any length; a zero row has logits 0.
        head: [K, D], one text embedding per class, any length.
        logit_scale: s > 0, the teacher's, or what the method vl2v learnt in its place.

    Returns:
        [B, K] logits in [-s, s].
    """
    return logit_scale * F.normalize(projected, dim=-1) @ F.normalize(head, dim=-1).T


class Student(nn.Module):
    """An image classifier that lives in its teacher's embedding space.

    A baseline that never saw that space has no head: its last layer gives the logits itself.

    Args:
        backbone: f and what it expects.
        projection: P, maps [B, F] to [B, D], or to [B, K] logits where there is no head.
        head: [K, D] text embeddings of the classes; None for a baseline.
        classes: K class names, in the head's order.
        logit_scale: the teacher's, or what the method vl2v learnt in its place.
        provenance: what is to be remembered of its making: versions, seeds, teacher, data.

    Attributes:
        trust: temperature, thresholds and drift, fitted at the end of a run; None before, or without validation images.

    Raises:
        StudentError: if the shapes do not fit together.
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
        count, shape = len(self.classes), [len(self.classes), 1] if self.head is None else list(self.head.shape)
        if len(shape) != 2 or shape[0] != count or len(set(self.classes)) != count:
            expected = f"[{count}, D] text embeddings and as many different class names"
            raise StudentError("Head and classes do not fit.", expected=expected, found=str(shape))

    @property
    def dimension(self) -> int:
        """D, the dimension of the space shared with the teacher; K without a head."""
        return len(self.classes) if self.head is None else int(self.head.shape[1])

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next((tensor.device for tensor in self.state_dict().values()), torch.device("cpu"))

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised pixels [B, 3, S, S] to projections [B, D], not normalised."""
        projected: Tensor = self.projection(self.backbone(inputs))
        return projected

    def embed(self, images: Input | Iterable[Input], batch_size: int = 64) -> NDArray[np.float32]:
        """Embed images into the teacher's space.

        Args:
            images: one or many: paths, folders, files' bytes, binary streams, PIL images.
            batch_size: how many go through the backbone at once.

        Returns:
            [N, D] float32, rows of length one.

        Raises:
            UnreadableImageError: if one of them is no usable image.
            StudentError: if it has no head, and so no part in the teacher's space.
        """
        self._head()
        return self.embeddings(self.project(images, batch_size)).cpu().numpy()

    def predict_proba(self, images: Input | Iterable[Input], batch_size: int = 64) -> NDArray[np.float32]:
        """Class probabilities, [N, K] float32, rows summing to 1, columns in the order of `classes`.

        They are calibrated where the student has a `trust`: its temperature divides the logits.
        """
        temperature = self.trust.temperature if self.trust else 1.0
        logits = self.logits(self.project(images, batch_size)) / temperature
        return logits.softmax(-1).cpu().numpy()

    def predict(self, images: Input | Iterable[Input], batch_size: int = 64) -> list[str]:
        """The most probable class name of every image."""
        return [self.classes[k] for k in self.predict_proba(images, batch_size).argmax(axis=1)]

    def project(self, images: Input | Iterable[Input], batch_size: int = 64) -> Tensor:
        """Images to projections, [N, D] float32, not normalised, for `logits` and `embeddings`."""
        single = each(images)
        rows = []
        while batch := [self.preprocess.pixels(image) for image in islice(single, batch_size)]:
            rows.append(self.project_pixels(torch.stack(batch)))
        return torch.cat(rows) if rows else torch.zeros(0, self.dimension, device=self.device)

    @torch.no_grad()
    def project_pixels(self, pixels: Tensor) -> Tensor:
        """[N, 3, S, S] uint8 pixels, as `preprocess.pixels` makes them, to projections, [N, D] float32."""
        was_training = self.training
        self.eval()
        projected = self.forward(self.preprocess.normalise(pixels.to(self.device))).float()
        self.train(was_training)
        return projected

    def embeddings(self, projected: Tensor) -> Tensor:
        """[B, D] projections to rows of length one.

        Raises:
            StudentError: if it has no head, and so no part in the teacher's space.
        """
        self._head()
        return F.normalize(projected.float(), dim=-1)

    def logits(self, projected: Tensor) -> Tensor:
        """[B, D] projections to [B, K] logits; without a head they are the logits."""
        projected = projected.float()
        return projected if self.head is None else cosine_logits(projected, self.head, self.logit_scale)

    def add_class(self, name: str, vector: ArrayLike) -> None:
        """Know one class more, without training: its text embedding becomes a row of the head.

        Args:
            name: the class's name, not taken yet.
            vector: [D] the teacher's embedding of its prompt, any length above 0.

        Raises:
            StudentError: if the name is taken, the vector has another dimension or no direction, or there is no head.
        """
        head = self._head()
        row = torch.as_tensor(np.asarray(vector, dtype=np.float32), device=head.device)
        if name in self.classes:
            raise StudentError(f"The class '{name}' is known already.", expected="a new name", found=name)
        if row.shape != (self.dimension,) or not torch.isfinite(row).all() or row.norm() < 1e-6:
            expected = f"a finite vector [{self.dimension}] with a direction"
            step = "embed the prompt with the teacher that this student learnt from"
            raise StudentError("The vector cannot be a class.", expected=expected, found=f"{row.shape}", next_step=step)
        self.head = torch.cat([head, F.normalize(row, dim=0)[None]])
        self.classes.append(name)

    def remove_class(self, name: str) -> None:
        """Forget a class: its row leaves the head. At least one class stays.

        Args:
            name: a known class's.

        Raises:
            StudentError: if the name is unknown or the last one, or there is no head.
        """
        head = self._head()
        if name not in self.classes:
            near = difflib.get_close_matches(name, self.classes, cutoff=0.5)
            expected = f"one of {', '.join(near or self.classes)}"
            step = "see all with: vl2v classes list"
            raise StudentError(f"There is no class '{name}'.", expected=expected, found=name, next_step=step)
        if len(self.classes) == 1:
            raise StudentError(f"'{name}' is the only class.", expected="at least one class that stays", found="none")
        place = self.classes.index(name)
        self.head = torch.cat([head[:place], head[place + 1 :]])
        self.classes.pop(place)

    def save(self, folder: str | Path) -> Path:
        """Write the student as a folder of safetensors and JSON; see `vl2v.student.files`."""
        from vl2v.student.files import save

        return save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, backbone: nn.Module | None = None, device: str = "cpu") -> Student:
        """Read a student from its folder, in eval mode.

        Args:
            folder: what `save` wrote, or a run's folder.
            backbone: the architecture, if it is a module of your own.
            device: where to put it.
        """
        from vl2v.student.files import load

        return load(Path(folder), backbone).to(device)

    def _head(self) -> Tensor:
        if self.head is None:
            raise StudentError(
                "This student knows nothing of the teacher's space.",
                expected="a student with text embeddings as its head",
                found="a baseline with a linear classifier",
                next_step="distil one with the method adip",
            )
        return self.head
