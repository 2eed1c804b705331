"""Zero-shot classification by a teacher's embeddings."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vl2v.student.model import cosine_logits


def zero_shot_logits(embeddings: NDArray[np.float32], head: Tensor, logit_scale: float) -> NDArray[np.float32]:
    """Return the logits [N, K] of a teacher's image embeddings [N, D] and its text head [K, D]."""
    logits: NDArray[np.float32] = cosine_logits(torch.from_numpy(np.array(embeddings)), head, logit_scale).numpy()
    return logits
