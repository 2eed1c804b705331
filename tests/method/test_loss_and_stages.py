from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vl2v.errors import TrainingError
from vl2v.method.align import align
from vl2v.method.distill import Projected, distill, trainable
from vl2v.method.loop import Batch, total
from vl2v.method.loss import dual_loss, dual_terms, scheduled_weight


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


@given(st.integers(1, 9), st.integers(2, 12), st.floats(0, 1), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_dual_loss_is_the_weighted_mean_of_cosines(rows: int, width: int, weight: float, seed: int) -> None:
    p, i, t = torch.randn(3, rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    by_hand = -sum(weight * cosine(p[r], i[r]) + (1 - weight) * cosine(p[r], t[r]) for r in range(rows)) / rows
    assert abs(float(dual_loss(p, i, t, weight)) - by_hand) < 1e-12
    assert abs(float(dual_loss(p * 7, i * 3, t * 0.1, weight)) - by_hand) < 1e-12, "lengths do not matter"


def test_zero_projection_gives_a_finite_loss_and_gradient() -> None:
    p = torch.zeros(2, 4, requires_grad=True)
    loss = dual_loss(p, torch.randn(2, 4), torch.randn(2, 4))
    torch.autograd.backward(loss)
    assert p.grad is not None
    assert loss.item() == 0
    assert torch.isfinite(p.grad).all()


def test_rows_without_a_label_only_have_the_image_term() -> None:
    p, i, t = torch.randn(3, 5, 8)
    labelled = torch.tensor([True, False, True, False, False])
    image = sum(cosine(p[r], i[r]) for r in range(5)) / 5
    text = (cosine(p[0], t[0]) + cosine(p[2], t[2])) / 2
    assert math.isclose(float(dual_loss(p, i, t, 0.3, labelled)), -(0.3 * image + 0.7 * text), abs_tol=1e-6)
    assert math.isfinite(float(dual_loss(p, i, t, 0.3, torch.zeros(5, dtype=torch.bool))))


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_weight_outside_its_range_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        dual_loss(torch.randn(2, 4), torch.randn(2, 4), torch.randn(2, 4), weight)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        dual_loss(torch.randn(2, 4), torch.randn(2, 3), torch.randn(2, 4))


def batch(rows: int = 6) -> Batch:
    return Batch(torch.randn(rows, 3, 8, 8), torch.randn(rows, 4), torch.randn(rows, 4))


def backbone() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_distill_freezes_what_the_paper_freezes() -> None:
    f, p = backbone(), nn.Linear(5, 4)
    before = {name: value.clone() for name, value in [*f.state_dict().items(), *p.state_dict(prefix="p.").items()]}
    distill(f, p, [batch() for _ in range(3)], learning_rate=1e-2)
    after = [*f.state_dict().items(), *p.state_dict(prefix="p.").items()]
    still = {name for name, value in after if torch.equal(value, before[name])}
    assert still == {"1.running_mean", "1.running_var", "1.num_batches_tracked", "p.weight", "p.bias"}
    assert all(parameter.grad is None for parameter in p.parameters())


def test_validation_in_eval_mode_does_not_unfreeze() -> None:
    f, p, modes = backbone(), nn.Linear(5, 4), []

    def validate(step: int) -> float:
        modes.append((f.training, f[1].training))
        f.eval()
        return 1.0

    distill(f, p, [batch() for _ in range(3)], validate=validate)
    assert modes == [(True, False)] * 3


def test_projection_is_in_eval_mode_and_its_parameters_are_not_trained() -> None:
    model = Projected(backbone(), nn.Sequential(nn.Linear(5, 4), nn.Dropout())).train()
    assert not model.projection.training
    assert set(trainable(model.backbone)) == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_nan_stops_training_with_its_step_and_changes_no_weight() -> None:
    f, p = backbone(), nn.Linear(5, 4)
    poisoned = Batch(torch.full((6, 3, 8, 8), torch.nan), torch.randn(6, 4), torch.randn(6, 4))
    distill(f, p, [batch()])
    before = {name: value.clone() for name, value in f.state_dict().items()}
    with pytest.raises(TrainingError, match="step 7"):
        distill(f, p, [poisoned], first_step=7)
    assert all(torch.equal(value, before[name]) for name, value in f.state_dict().items())


def test_align_trains_the_projection_towards_its_targets() -> None:
    p, features = nn.Linear(5, 4), torch.randn(32, 5)
    target = features @ torch.randn(5, 4)
    losses = align(p, [Batch(features, target, target)] * 300, learning_rate=1e-2)
    assert losses[-1] < -0.99 < losses[0]
    assert align(p, [Batch(features, target, target)] * 9, after_step=lambda step, loss: step == 3) == pytest.approx(
        [losses[-1]] * 4, abs=0.01
    )


def test_the_schedule_is_linear_from_first_to_last() -> None:
    assert [scheduled_weight(0.9, 0.1, step, 5) for step in (0, 2, 4)] == pytest.approx([0.9, 0.5, 0.1])
    assert scheduled_weight(0.9, 0.1, 0, 1) == 0.9


def test_the_weight_of_a_batch_overrides_that_of_the_objective() -> None:
    p, plain = torch.randn(6, 4), batch()
    image, text = plain.teacher_image, plain.teacher_text
    assert total(dual_terms(0.3)(p, plain)).equal(dual_loss(p, image, text, 0.3))
    assert total(dual_terms(0.3)(p, replace(plain, image_weight=0.0))).equal(dual_loss(p, image, text, 0.0))
