"""The method of the recipe: the gradients of each term, and the saved student."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from test_baselines import CONTEXT, batch, divergence_by_hand
from torch import Tensor, nn

from vl2v.method.align import align
from vl2v.method.distill import Projected, distill, trainable
from vl2v.method.loop import total
from vl2v.method.loss import dual_loss
from vl2v.method.recipe import GAIN, VL2V, Vl2vSettings, with_pseudo_labels
from vl2v.method.scaled_projection import ScaledProjection
from vl2v.student.model import cosine_logits

LABELS = [0, 2, -1, 1]


def output(gain: float = 0.3) -> Tensor:
    rows = torch.randn(len(LABELS), 4, generator=torch.Generator().manual_seed(3))
    return torch.cat([rows, torch.full((len(LABELS), 1), gain)], dim=1).requires_grad_()


def gradients(weight: float) -> tuple[float, Tensor]:
    out = output()
    loss = total(VL2V.objective(replace(CONTEXT, settings=Vl2vSettings(kl_weight=weight)))(out, batch(LABELS)))
    torch.autograd.backward(loss)
    assert out.grad is not None
    return float(loss.detach()), out.grad


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_the_loss_is_its_parts(weight: float) -> None:
    b, out = batch(LABELS), output().detach()
    logits = math.exp(0.3) * cosine_logits(out[:, :4], CONTEXT.head, CONTEXT.logit_scale)
    divergence = divergence_by_hand(logits, cosine_logits(b.teacher_image, CONTEXT.head, CONTEXT.logit_scale), 2.0)
    dual = float(dual_loss(out[:, :4], b.teacher_image, b.teacher_text, 0.5, b.labelled))
    assert gradients(weight)[0] == pytest.approx(dual + (1 + weight) * divergence, abs=1e-5)


def test_features_learn_from_dual_loss_and_divergence_and_the_scale_from_calibration() -> None:
    b, out = batch(LABELS), output()
    dual = dual_loss(out[:, :4], b.teacher_image, b.teacher_text, 0.5, b.labelled)
    (alone,) = torch.autograd.grad(dual, out)
    none, some = gradients(0.0)[1], gradients(0.3)[1]
    torch.testing.assert_close(none[:, :4], alone[:, :4])
    assert (some[:, :4] - alone[:, :4]).abs().max() > 1e-2
    assert none[:, 4].sum().abs() > 1e-3
    torch.testing.assert_close(none[:, 4], some[:, 4])


def test_the_scale_converges_to_the_confidence_of_the_teacher() -> None:
    b, layer = batch([0, 1, 2, 0, 1, 2]), ScaledProjection(4, CONTEXT.head)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(4))
        layer.bias.zero_()
        layer.log_gain.fill_(1.0)
    b = replace(b, inputs=b.teacher_image)  # the directions of the student are those of the teacher
    optimizer = torch.optim.Adam([layer.log_gain], lr=5e-2)
    align(layer, [b] * 150, objective=VL2V.objective(replace(CONTEXT, settings=Vl2vSettings())), optimizer=optimizer)
    assert layer.gain == pytest.approx(1, abs=0.02)
    assert VL2V.gain(layer) == layer.gain
    layer.log_gain.data.fill_(50.0)
    assert VL2V.gain(layer) == pytest.approx(10)
    assert VL2V.gain(nn.Identity()) == 1


def test_distill_moves_the_backbone_and_the_scale_and_not_the_projection() -> None:
    torch.manual_seed(0)
    f, layer = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), ScaledProjection(5, CONTEXT.head)
    before = {key: value.detach().clone() for key, value in trainable(f, layer).items()}
    settings = {
        "objective": VL2V.objective(replace(CONTEXT, settings=Vl2vSettings())),
        "train_projection": VL2V.extra_parameters,
        "learning_rate": 1e-2,
    }
    done = distill(f, layer, [batch(LABELS)] * 20, **settings)  # type: ignore[arg-type]
    assert done.losses[-1] < done.losses[0]
    same = {key for key, value in trainable(f, layer).items() if value.equal(before[key])}
    assert same == {"projection/weight", "projection/bias"}
    assert set(trainable(f, layer, VL2V.extra_parameters)) == {"1.weight", "1.bias", f"projection/{GAIN}"}


def test_the_saved_projection_is_linear_and_starts_like_that_of_the_paper() -> None:
    torch.manual_seed(4)
    paper_layer = nn.Linear(5, 4)
    torch.manual_seed(4)
    assert VL2V.layer is not None
    layer = VL2V.layer(5, CONTEXT.head)
    saved, x = VL2V.saved_layer(layer), torch.randn(3, 5)
    assert type(saved) is nn.Linear
    assert saved(x).equal(paper_layer(x))
    assert layer(x)[:, :4].equal(paper_layer(x))
    assert layer(x)[:, 4].tolist() == [0, 0, 0]


def test_an_encoder_without_a_projection_has_the_scale_of_the_teacher() -> None:
    f, identity = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), nn.Identity()
    objective = VL2V.objective(replace(CONTEXT, settings=Vl2vSettings(kl_weight=0.1)))
    done = distill(f, identity, [batch(LABELS)] * 3, objective=objective, train_projection=VL2V.extra_parameters)
    assert len(done.losses) == 3
    assert VL2V.saved_layer(identity) is identity
    assert Projected(f, identity)(batch(LABELS).inputs).shape == (4, 4)


def test_confident_predictions_of_the_teacher_are_labels() -> None:
    b = batch([0, -1, -1, -1])
    b = replace(b, queried=torch.tensor([True, True, True, False]))
    logits = torch.tensor([[0.0, 9, 0], [0, 9, 0], [0, 0.5, 0], [0, 0, 0]])
    changed = with_pseudo_labels(b, logits, CONTEXT.head, 0.9)
    assert changed.labelled is not None
    assert changed.labelled.tolist() == [True, True, False, False], "a label stays, and a doubtful image has none"
    assert changed.teacher_text[0].equal(b.teacher_text[0])
    assert changed.teacher_text[1].equal(CONTEXT.head[1])
    assert with_pseudo_labels(b, logits, CONTEXT.head, 1.0) is b
    assert with_pseudo_labels(batch([0, 1]), logits[:2], CONTEXT.head, 0.0).labelled is None


@pytest.mark.parametrize(("confidence", "text"), [(1.0, False), (0.0, True)])
def test_images_without_a_label_have_a_text_term_if_the_teacher_is_confident(confidence: float, text: bool) -> None:
    b, settings = batch([-1, -1, -1]), Vl2vSettings(pseudo_labels=confidence)
    rows = output()[:3]
    parts = VL2V.objective(replace(CONTEXT, settings=settings))(rows, b)
    assert isinstance(parts, dict)
    predicted = cosine_logits(b.teacher_image, CONTEXT.head, 1.0).argmax(dim=-1)
    wanted = -0.5 * torch.cosine_similarity(rows[:, :4], CONTEXT.head[predicted]).mean() if text else torch.zeros(())
    torch.testing.assert_close(parts["text"].detach(), wanted.detach())
