"""Fresh views: query a local teacher for every augmented image of Distill, as the research code does.

To compare with: it shows what asking once per image gives away. A vendor would be paid steps times batch queries.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vl2v.config import RunConfig
from vl2v.errors import ConfigError
from vl2v.teacher.base import Teacher, checked
from vl2v.teacher.file import FileTeacher
from vl2v.teacher.http.remote import RemoteTeacher
from vl2v.teacher.registry import is_remote


@dataclass
class FreshViews:
    """Asks a free, local teacher about pixels; keeps no answer and books nothing.

    Attributes:
        teacher: who is asked.
        queries: images asked about for the steps taken so far, in all processes.
    """

    teacher: Teacher
    queries: int = 0

    def ask(self, pixels: Tensor, processes: int = 1) -> Tensor:
        """The teacher's vectors of a batch as the student sees it, before normalisation.

        Args:
            pixels: [B, 3, S, S] uint8, sent as PNG files.
            processes: how many ask as much at the same step.

        Returns:
            [B, D] float32, on the CPU.

        Raises:
            TeacherError: if an answer cannot be used.
        """
        card = self.teacher.describe()
        files = [_png(image) for image in pixels]
        parts = [files[start : start + card.batch_size] for start in range(0, len(files), card.batch_size)]
        answers = [checked(self.teacher.embed_images(part), len(part), card, "image") for part in parts]
        self.queries += len(files) * processes
        return torch.from_numpy(np.concatenate(answers))


def fresh_views(config: RunConfig, teacher: Teacher) -> FreshViews | None:
    """Fresh views, if the settings ask for them.

    Raises:
        ConfigError: if the teacher cannot give them for nothing.
    """
    if config.teacher.views != "fresh":
        return None
    spec, kind = config.teacher.spec, ""
    if is_remote(spec) or isinstance(teacher, RemoteTeacher):  # by its name first: the look at an object may ask it
        kind = "is behind a network"
    elif isinstance(teacher, FileTeacher):
        kind = "is a file, which contains no augmented images"
    elif not teacher.describe().price.free:
        kind = "charges for queries"
    if kind:
        rows = f"{config.distill.steps:,} steps x {config.batch_per_domain} images of every source domain"
        raise ConfigError(
            f"Fresh views are not possible: they need steps x batch queries ({rows}).",
            expected="a free teacher on this machine, e.g. open_clip: or offline:",
            found=f"{spec}, which {kind}",
            next_step="set teacher.views (--views) to a number",
        )
    return FreshViews(teacher)


def _png(image: Tensor) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(out, "PNG", compress_level=0)  # read at once, kept nowhere
    return out.getvalue()
