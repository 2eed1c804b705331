"""The layer of RISE, and its distances to the text of the class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EmbeddingClassifier(nn.Module):
    """A projection to the teacher's embedding space, followed by a linear classifier, as in the authors' code.

    Args:
        features: F.
        head: [K, D], the text head. The weights of the classifier are initialised with it.
    """

    def __init__(self, features: int, head: Tensor) -> None:
        super().__init__()
        classes, dimension = head.shape
        self.projection = nn.Linear(features, dimension)
        self.classifier = nn.Linear(dimension, classes)
        with torch.no_grad():
            self.classifier.weight.copy_(head)
            self.classifier.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """Map [B, F] to [B, K + D]: the logits, then the embedding from which they are computed."""
        embedding = self.projection(features)
        return torch.cat([self.classifier(embedding), embedding], dim=-1)

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """Merge both layers into one linear layer from F to K that returns the same logits."""
        one = nn.Linear(self.projection.in_features, self.classifier.out_features)
        one.weight.copy_(self.classifier.weight @ self.projection.weight)
        one.bias.copy_(self.classifier.weight @ self.projection.bias + self.classifier.bias)
        return one


def text_distance(embedding: Tensor, text: Tensor, labelled: Tensor | None = None) -> Tensor:
    """Return the absolute distance of RISE, as in its code: 1 - cos(e, T_y), averaged over rows with a label.

    Args:
        embedding: [B, D], with rows of any length. A zero row has distance 1.
        text: [B, D], the text embedding of the class of each row.
        labelled: [B] bool. None means that all rows have a label.

    Returns:
        A scalar in [0, 2], 0 if no row has a label.
    """
    return _mean(1 - F.cosine_similarity(embedding, text), labelled)


def relative_distance(embedding: Tensor, text: Tensor, anchors: Tensor, labelled: Tensor | None = None) -> Tensor:
    """Return the relative distance of RISE, as in its code. It compares similarities to further texts of the class.

    It is ten times the squared difference of softmax_a cos(e, A_a) and softmax_a cos(T_y, A_a), averaged over anchors a
    and over rows with a label.

    Args:
        embedding: [B, D], with rows of any length.
        text: [B, D], the text embedding of the class of each row.
        anchors: [B, A, D], further texts of that class.
        labelled: [B] bool. None means that all rows have a label.

    Returns:
        A scalar, at least 0, and 0 if no row has a label.
    """
    student, teacher = (F.cosine_similarity(e[:, None], anchors, dim=-1).softmax(-1) for e in (embedding, text))
    return 10 * _mean(((student - teacher) ** 2).mean(-1), labelled)  # both [B, A]


def _mean(rows: Tensor, labelled: Tensor | None) -> Tensor:
    if labelled is None:
        return rows.mean()
    return torch.where(labelled, rows, 0).sum() / labelled.sum().clamp(min=1)
