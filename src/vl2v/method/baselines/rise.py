"""RISE: cross-entropy, the teacher's softened zero-shot predictions, and the distance to the text of the class.

Huang et al., "A Sentence Speaks a Thousand Images: Domain Generalization through Distilling CLIP with Language
Guidance", ICCV 2023 (arXiv 2309.12530).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import field_validator
from torch import Tensor, nn

from vl2v.method.base import Context, Method, Settings
from vl2v.method.baselines.erm import cross_entropy, labels_of
from vl2v.method.baselines.kd import softened_divergence, zero_shot_logits
from vl2v.method.loop import Batch, Objective
from vl2v.strict import Fraction, Rate, Weight


class RiseSettings(Settings):
    """RISE. The defaults are within the ranges that its authors search."""

    temperature: Rate = 3.0
    """Temperature of the teacher's zero-shot predictions."""
    teacher_share: Fraction = 0.9
    """Weight of the divergence from the teacher in the loss on classes. The rest is cross-entropy on the labels."""
    distance: Weight = 1.0
    """Weight of the distances to the text of the class."""
    anchors: tuple[str, ...] = ()
    """Templates of the texts for the relative distance. It is omitted if there are none."""

    @field_validator("anchors")
    @classmethod
    def _several(cls, anchors: tuple[str, ...]) -> tuple[str, ...]:
        if len(anchors) == 1:
            raise ValueError("expected at least two templates for the relative distance, or none")
        return anchors


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


def _objective(context: Context[RiseSettings]) -> Objective:
    settings, classes = context.settings, len(context.head)
    share, weight = settings.teacher_share, settings.distance

    def objective(output: Tensor, batch: Batch) -> dict[str, Tensor]:
        logits, embedding = output[:, :classes], output[:, classes:]
        divergence = softened_divergence(logits, zero_shot_logits(context, batch, output), settings.temperature)
        parts = {
            "teacher": share * divergence,
            "labels": (1 - share) * cross_entropy(logits, batch),
            "distance": weight * text_distance(embedding, batch.teacher_text, batch.labelled),
        }
        if context.texts is not None:
            anchors = context.texts.to(output)[labels_of(batch).clamp(min=0)]
            relative = relative_distance(embedding, batch.teacher_text, anchors, batch.labelled)
            parts["relative distance"] = weight * relative
        return parts

    return objective


def _saved_layer(layer: nn.Module) -> nn.Module:
    assert isinstance(layer, EmbeddingClassifier)
    return layer.folded()


RISE = Method(
    name="rise",
    title="RISE",
    settings=RiseSettings,
    stages=("linear probe", "distillation"),
    classifier="linear",
    objective=_objective,
    first_stage=False,
    trains_layer=True,
    queries_teacher=True,
    supports_encoder=False,
    layer=EmbeddingClassifier,
    saved_layer=_saved_layer,
    texts=lambda settings: settings.anchors,
)
