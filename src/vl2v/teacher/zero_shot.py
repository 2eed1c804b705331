"""Zero-shot classification by a teacher's embeddings."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vl2v.student.model import cosine_logits


def zero_shot_logits(embeddings: NDArray[np.float32], head: Tensor, logit_scale: float) -> NDArray[np.float32]:
    """The teacher's logits for [N, D] of its embeddings against the [K, D] text head, [N, K] float32."""
    logits: NDArray[np.float32] = cosine_logits(torch.from_numpy(np.array(embeddings)), head, logit_scale).numpy()
    return logits
