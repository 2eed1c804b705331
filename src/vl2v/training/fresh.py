"""Fresh views: query a local teacher for every augmented image of Distill, as the research code does.

For comparison: it shows the loss of accuracy by one query per image. A vendor would be paid steps times batch queries.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vl2v.teacher.base import Teacher, checked


@dataclass
class FreshViews:
    """Queries a free, local teacher for augmented images; nothing is stored or charged.

    Attributes:
        teacher: the one to query.
        queries: images queried in the steps so far, in all processes.
    """

    teacher: Teacher
    queries: int = 0

    def query(self, pixels: Tensor, processes: int = 1) -> Tensor:
        """The teacher's embeddings of a batch as the student sees it, before normalisation.

        Args:
            pixels: [B, 3, S, S] uint8, sent as PNG files.
            processes: how many query as much at the same step.

        Returns:
            [B, D] float32, on the CPU.

        Raises:
            TeacherError: if a response cannot be used.
        """
        card = self.teacher.describe()
        files = [_png(image) for image in pixels]
        parts = [files[start : start + card.batch_size] for start in range(0, len(files), card.batch_size)]
        answers = [checked(self.teacher.embed_images(part), len(part), card, "image") for part in parts]
        self.queries += len(files) * processes
        return torch.from_numpy(np.concatenate(answers))


def _png(image: Tensor) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(out, "PNG", compress_level=0)  # read at once, not stored
    return out.getvalue()
