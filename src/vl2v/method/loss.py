"""The dual loss of VL2V-ADiP."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vl2v.method.loop import Batch, total


def dual_loss(
    projected: Tensor,
    teacher_image: Tensor,
    teacher_text: Tensor,
    image_weight: float = 0.5,
    labelled: Tensor | None = None,
) -> Tensor:
    """Dual loss: pulls the projected features of an image towards its image embedding and its text embedding.

    L = -(lambda * mean_i cos(p_i, I_i) + (1 - lambda) * mean_i cos(p_i, T_i)), the loss of Align and of Distill in
    arXiv 2310.08255. Rows need not be normalised. A zero row has cosine 0.

    Args:
        projected: [B, D] floating point, P(f(x)).
        teacher_image: [B, D], the image embeddings I(x). A zero row stands for an image that was not queried, which
            has no image term.
        teacher_text: [B, D], the text embedding T_y of the class of each image. Rows without a label are ignored.
        image_weight: lambda in [0, 1].
        labelled: [B] bool, false for images without a label, which only have the image term. None means that all images
            have a label.

    Returns:
        A scalar in [-1, 1].

    Raises:
        ValueError: if the shapes differ or `image_weight` is outside [0, 1].
    """
    return total(dual_parts(projected, teacher_image, teacher_text, image_weight, labelled))


def dual_parts(
    projected: Tensor,
    teacher_image: Tensor,
    teacher_text: Tensor,
    image_weight: float = 0.5,
    labelled: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the two weighted terms of `dual_loss`, the scalars ``image`` and ``text``. Their sum is the loss.

    Arguments and errors are those of `dual_loss`.
    """
    if not projected.shape == teacher_image.shape == teacher_text.shape or projected.ndim != 2:
        shapes = [list(t.shape) for t in (projected, teacher_image, teacher_text)]
        raise ValueError(f"expected three tensors of one shape [B, D], found {shapes}")
    if not 0 <= image_weight <= 1:
        raise ValueError(f"expected an image weight in [0, 1], found {image_weight}")
    direction = F.normalize(projected, dim=-1)  # [B, D]
    image_cosine = (direction * F.normalize(teacher_image, dim=-1)).sum(-1)  # [B]
    text_cosine = (direction * F.normalize(teacher_text, dim=-1)).sum(-1)  # [B]
    image_term = image_cosine.mean()
    if labelled is None:
        text_term = text_cosine.mean()
    else:
        count = labelled.to(text_cosine.dtype).sum()
        text_term = torch.where(labelled, text_cosine, 0).sum() / count.clamp(min=1)
    return {"image": -(image_weight * image_term), "text": -((1 - image_weight) * text_term)}


def dual_terms(image_weight: float) -> Callable[[Tensor, Batch], dict[str, Tensor]]:
    """Return the objective of both stages of VL2V-ADiP: the dual loss in its parts ``image`` and ``text``.

    Args:
        image_weight: lambda in [0, 1] for batches without a lambda of their own.
    """

    def objective(projected: Tensor, batch: Batch) -> dict[str, Tensor]:
        weight = image_weight if batch.image_weight is None else batch.image_weight
        return dual_parts(projected, batch.teacher_image, batch.teacher_text, weight, batch.labelled)

    return objective


def scheduled_weight(first: float, last: float, step: int, steps: int) -> float:
    """Return lambda of one step, interpolated linearly from `first` at step 0 to `last` at step `steps` - 1.

    Args:
        first: lambda in [0, 1] of the first step, also if it is the only one.
        last: lambda in [0, 1] of the last step.
        step: in [0, steps).
        steps: number of steps of the stage, at least 1.
    """
    return first if steps == 1 else first + (last - first) * (step / (steps - 1))
