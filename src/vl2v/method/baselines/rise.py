"""RISE: cross-entropy, the teacher's softened zero-shot answers, and the distance to the text of the image's class.

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
from vl2v.method.baselines.kd import softened_divergence, taught_logits
from vl2v.method.loop import Batch, Objective
from vl2v.strict import Fraction, Rate, Weight


class RiseSettings(Settings):
    """RISE; the defaults lie within the ranges that its authors search."""

    temperature: Rate = 3.0
    """Of the teacher's zero-shot answers."""
    teacher_share: Fraction = 0.9
    """Part of the loss on classes that is the divergence from the teacher; the rest is cross-entropy on the labels."""
    distance: Weight = 1.0
    """Weight of the distances to the text of the image's class."""
    anchors: tuple[str, ...] = ()
    """Templates of the texts that the relative distance compares with; none leaves it out."""

    @field_validator("anchors")
    @classmethod
    def _several(cls, anchors: tuple[str, ...]) -> tuple[str, ...]:
        if len(anchors) == 1:
            raise ValueError("expected at least two templates for the relative distance, or none")
        return anchors


class EmbeddingClassifier(nn.Module):
    """A projection into the teacher's space and a linear classifier on it, as in the authors' code.

    Args:
        features: F.
        head: [K, D], the text head; the classifier's weights begin as it.
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
        """[B, F] to [B, K + D]: logits, then the embedding they come from."""
        embedding = self.projection(features)
        return torch.cat([self.classifier(embedding), embedding], dim=-1)

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """Both layers as the one linear layer that gives the same logits, F to K."""
        one = nn.Linear(self.projection.in_features, self.classifier.out_features)
        one.weight.copy_(self.classifier.weight @ self.projection.weight)
        one.bias.copy_(self.classifier.weight @ self.projection.bias + self.classifier.bias)
        return one


def text_distance(embedding: Tensor, text: Tensor, labelled: Tensor | None = None) -> Tensor:
    """The absolute distance of RISE, as its code has it: 1 - cos(e, T_y), averaged over rows with a label.

    Args:
        embedding: [B, D], any length; a zero row has distance 1.
        text: [B, D], the text embedding of each row's class.
        labelled: [B] bool; None means all rows have a label.

    Returns:
        A scalar in [0, 2]; 0 without any label.
    """
    return _mean(1 - F.cosine_similarity(embedding, text), labelled)


def relative_distance(embedding: Tensor, text: Tensor, anchors: Tensor, labelled: Tensor | None = None) -> Tensor:
    """The relative distance of RISE, as its code has it: where e lies among further texts of its class, T_y beside it.

    Ten times the squared difference of softmax_a cos(e, A_a) and softmax_a cos(T_y, A_a), averaged over anchors a and
    over rows with a label.

    Args:
        embedding: [B, D], any length.
        text: [B, D], the text embedding of each row's class.
        anchors: [B, A, D], further texts of that class.
        labelled: [B] bool; None means all rows have a label.

    Returns:
        A scalar, at least 0, and 0 without any label.
    """
    mine, true = (F.cosine_similarity(e[:, None], anchors, dim=-1).softmax(-1) for e in (embedding, text))  # [B, A]
    return 10 * _mean(((mine - true) ** 2).mean(-1), labelled)


def _mean(rows: Tensor, labelled: Tensor | None) -> Tensor:
    if labelled is None:
        return rows.mean()
    return torch.where(labelled, rows, 0).sum() / labelled.sum().clamp(min=1)


def _objective(context: Context[RiseSettings]) -> Objective:
    settings, classes = context.settings, len(context.head)
    share, weight = settings.teacher_share, settings.distance

    def objective(output: Tensor, batch: Batch) -> dict[str, Tensor]:
        logits, embedding = output[:, :classes], output[:, classes:]
        taught = taught_logits(context, batch, output)
        divergence = softened_divergence(logits, taught, settings.temperature)
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


def _kept(layer: nn.Module) -> nn.Module:
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
    asks_teacher=True,
    takes_encoder=False,
    layer=EmbeddingClassifier,
    kept=_kept,
    texts=lambda settings: settings.anchors,
)
