"""Fresh views: query a local teacher for every augmented image of Distill, as in the authors' code.

They serve as a comparison: the difference is the cost in accuracy of one query per image. A vendor would charge steps
times batch size queries.
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
    """Queries a free, local teacher for augmented images. Nothing is stored or charged.

    Attributes:
        queries: number of images queried so far, in all processes.
    """

    teacher: Teacher
    queries: int = 0

    def query(self, pixels: Tensor, processes: int = 1) -> Tensor:
        """Query the teacher for a batch of augmented images, before normalisation: [B, D] float32 on the CPU.

        Args:
            pixels: [B, 3, S, S] uint8, sent as PNG files.
            processes: number of processes that query as many images in the same step.

        Raises:
            TeacherError: if a response cannot be used.
        """
        card = self.teacher.describe()
        files = [_png(image) for image in pixels]
        parts = [files[start : start + card.batch_size] for start in range(0, len(files), card.batch_size)]
        embeddings = [checked(self.teacher.embed_images(part), len(part), card, "image") for part in parts]
        self.queries += len(files) * processes
        return torch.from_numpy(np.concatenate(embeddings))


def _png(image: Tensor) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(out, "PNG", compress_level=0)  # not stored
    return out.getvalue()
