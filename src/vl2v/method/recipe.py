"""The method of the recipe `ood`: dual loss, the teacher's predictions for unlabelled images, a learned logit scale.

L = dual loss + w * KL(P f) + KL(stopped P f), where KL is T^2 KL(teacher || student) of the zero-shot and the student's
probabilities, both softened by T. The student's logits are s * g * cos(P(f(x)), T_k) with the teacher's scale s and a
learned gain g. The last term calibrates: it trains g alone, since no gradient passes through the projected features.
The second term trains the features alone. The logit scale of the saved student is s * g.

An image without a label takes the class that the teacher predicts, if the teacher is confident (a pseudo-label; Lee,
2013; Sohn et al., 2020, arXiv 2001.07685). The dual loss then has a text term for this image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vl2v.method.base import Context, Method, Settings
from vl2v.method.baselines.kd import softened_divergence, zero_shot_logits
from vl2v.strict import Fraction, Rate, Weight

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vl2v.method.loop import Batch, Objective

GAIN = "log_gain"  # name of the parameter


class Vl2vSettings(Settings):
    """The recipe's method."""

    kl_weight: Weight | None = None
    """Weight of the divergence from the teacher's zero-shot predictions in the loss of the features. None is 0.1 if the
    training images include images without labels, whose class only this term states, and 0 otherwise."""
    pseudo_labels: Fraction = 1.0
    """Probability above which the teacher's zero-shot prediction is the label of an image without one, in the dual
    loss; 1 disables it. The default is 0.9 if images without labels are used for training that all show one of the
    classes: with `rest_unlabelled`, or if no image has a label, but not with `unlabelled`. Align in closed form does
    not use it."""
    temperature: Rate = 2.0
    """Temperature of the divergence, and of the one that trains the logit scale."""
    scale_learning_rate: Rate = 1e-2
    """Learning rate of the logarithm of the student's logit scale, in both stages."""


def with_pseudo_labels(batch: Batch, teacher_logits: Tensor, head: Tensor, confidence: float) -> Batch:
    """Return the batch with the teacher's predictions as labels of the images without a label.

    Args:
        teacher_logits: [B, K], zero-shot logits of the teacher.
        head: [K, D], text embeddings of the classes.
        confidence: probability in [0, 1] that a prediction must exceed.
    """
    import torch

    if batch.labelled is None or confidence >= 1:
        return batch
    probability, predicted = teacher_logits.softmax(dim=-1).max(dim=-1)
    confident = ~batch.labelled & (probability > confidence)
    text = torch.where(confident[:, None], head[predicted].to(batch.teacher_text), batch.teacher_text)
    return replace(batch, teacher_text=text, labelled=batch.labelled | confident)


def _objective(context: Context[Vl2vSettings]) -> Objective:
    from vl2v.method.loss import dual_terms
    from vl2v.student.model import cosine_logits

    dual, dimension = dual_terms(context.image_weight), context.head.shape[1]
    kl_weight, temperature = context.settings.kl_weight or 0.0, context.settings.temperature

    def objective(output: Tensor, batch: Batch) -> dict[str, Tensor]:
        projected, head = output[:, :dimension], context.head.to(output)
        teacher_logits = zero_shot_logits(context, batch, output)
        # VL2V-SD has no layer after the encoder and uses the teacher's scale.
        gain = output[0, dimension].exp() if output.shape[1] > dimension else output.new_ones(())

        def divergence(directions: Tensor, factor: Tensor) -> Tensor:
            logits = factor * cosine_logits(directions, head, context.logit_scale)
            return softened_divergence(logits, teacher_logits, temperature, batch.queried)

        labelled = with_pseudo_labels(batch, teacher_logits, head, context.settings.pseudo_labels)
        parts = dual(projected, labelled) | {"scale": divergence(projected.detach(), gain)}
        return parts | {"teacher": kl_weight * divergence(projected, gain.detach())} if kl_weight else parts

    return objective


def _layer(features: int, head: Tensor) -> nn.Module:
    from vl2v.method.scaled_projection import ScaledProjection

    return ScaledProjection(features, head)


def _saved_layer(layer: nn.Module) -> nn.Module:
    from vl2v.method.scaled_projection import ScaledProjection

    return layer.plain() if isinstance(layer, ScaledProjection) else layer


def _gain(layer: nn.Module) -> float:
    from vl2v.method.scaled_projection import ScaledProjection

    return layer.gain if isinstance(layer, ScaledProjection) else 1.0


VL2V = Method(
    name="vl2v",
    title="VL2V recipe",
    settings=Vl2vSettings,
    stages=("Align", "Distill"),
    classifier="cosine",
    objective=_objective,
    first_stage=True,
    trains_layer=False,
    queries_teacher=True,
    needs_labels=False,
    partial_queries=True,
    layer=_layer,
    saved_layer=_saved_layer,
    extra_parameters=(GAIN,),
    extra_rate=lambda settings: settings.scale_learning_rate,
    defaults=lambda without_labels: {"kl_weight": 0.1 if without_labels else 0.0},
    closed_set_defaults={"pseudo_labels": 0.9},
    pseudo_labels=lambda settings: settings.pseudo_labels,
    free_image_weight=True,
    gain=_gain,
)
