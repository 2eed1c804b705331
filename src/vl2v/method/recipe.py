"""The method of the recipe `ood`: dual loss, the teacher's predictions for unlabelled images, a learned logit scale.

L = dual loss + w * KL(P f) + KL(stopped P f), where KL is T^2 KL(teacher || student) of the zero-shot and the student's
probabilities, both softened by T. The student's logits are s * g * cos(P(f(x)), T_k) with the teacher's scale s and a
learned gain g. The last term calibrates: it trains g alone, since no gradient passes through the projected features.
The second term trains the features alone. The logit scale of the saved student is s * g.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vl2v.method.base import Context, Method, Settings
from vl2v.method.baselines.kd import softened_divergence, zero_shot_logits
from vl2v.strict import Rate, Weight

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vl2v.method.loop import Batch, Objective

GAIN = "log_gain"  # name of the parameter


class Vl2vSettings(Settings):
    """The recipe's method."""

    kl_weight: Weight | None = None
    """Weight of the divergence from the teacher's zero-shot predictions in the loss of the features. None is 0.1 if the
    training images include images without labels, whose class only this term states, and 0 otherwise."""
    temperature: Rate = 2.0
    """Temperature of this divergence, and of the one that trains the logit scale."""
    scale_learning_rate: Rate = 1e-2
    """Learning rate of the logarithm of the student's logit scale, in both stages."""


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

        parts = dual(projected, batch) | {"scale": divergence(projected.detach(), gain)}
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
    free_image_weight=True,
    gain=_gain,
)
