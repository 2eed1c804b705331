"""RISE: cross-entropy, the teacher's softened zero-shot predictions, and the distance to the text of the class.

Huang et al., "A Sentence Speaks a Thousand Images: Domain Generalization through Distilling CLIP with Language
Guidance", ICCV 2023 (arXiv 2309.12530).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import field_validator

from vl2v.method.base import Context, Method, Settings
from vl2v.method.baselines.erm import cross_entropy, labels_of
from vl2v.method.baselines.kd import softened_divergence, zero_shot_logits
from vl2v.strict import Fraction, Rate, Weight

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vl2v.method.loop import Batch, Objective


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


def _objective(context: Context[RiseSettings]) -> Objective:
    from vl2v.method.baselines.text_distance import relative_distance, text_distance

    settings, classes = context.settings, len(context.head)
    share, weight = settings.teacher_share, settings.distance

    def objective(output: Tensor, batch: Batch) -> dict[str, Tensor]:
        logits, embedding = output[:, :classes], output[:, classes:]
        teacher_logits = zero_shot_logits(context, batch, output)
        divergence = softened_divergence(logits, teacher_logits, settings.temperature, batch.queried)
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


def _layer(features: int, head: Tensor) -> nn.Module:
    from vl2v.method.baselines.text_distance import EmbeddingClassifier

    return EmbeddingClassifier(features, head)


def _saved_layer(layer: nn.Module) -> nn.Module:
    from vl2v.method.baselines.text_distance import EmbeddingClassifier

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
    partial_queries=True,
    supports_encoder=False,
    layer=_layer,
    saved_layer=_saved_layer,
    texts=lambda settings: settings.anchors,
)
