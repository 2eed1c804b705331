from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vl2v.method.base import Context, NoSettings
from vl2v.method.baselines.kd import KdSettings, softened_divergence
from vl2v.method.distill import distill, trainable
from vl2v.method.loop import Batch, total
from vl2v.method.registry import METHODS
from vl2v.student.model import cosine_logits

CONTEXT: Context[Any] = Context(head=F.normalize(torch.eye(3, 4), dim=-1), logit_scale=10.0, settings=NoSettings())


def batch(labels: list[int]) -> Batch:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(len(labels), 4, generator=generator)
    inputs = torch.randn(len(labels), 3, 8, 8, generator=generator)
    label_indices = torch.tensor(labels)
    mask = None if bool((label_indices >= 0).all()) else label_indices >= 0
    return Batch(inputs, image, CONTEXT.head[label_indices.clamp(min=0)], mask, label_indices)


def divergence_by_hand(logits: Tensor, teacher: Tensor, temperature: float) -> float:
    total = 0.0
    for s, t in zip(logits.tolist(), teacher.tolist(), strict=True):
        p, q = ([math.exp(v / temperature) for v in row] for row in (t, s))
        p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / len(logits)


@given(st.integers(1, 6), st.integers(2, 5), st.floats(0.5, 8), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_the_divergence_agrees_with_a_computation_by_hand(
    rows: int, classes: int, temperature: float, seed: int
) -> None:
    student, teacher = torch.randn(2, rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    divergence = float(softened_divergence(student, teacher, temperature))
    assert divergence == pytest.approx(divergence_by_hand(student, teacher, temperature), abs=1e-9)
    assert float(softened_divergence(teacher + 3, teacher, temperature)) == pytest.approx(0, abs=1e-9)


def test_naive_distillation_is_its_two_parts() -> None:
    b, logits = batch([0, 2, 1, 1]), torch.randn(4, 3)
    taught = cosine_logits(b.teacher_image, CONTEXT.head, 10.0)
    parts = (float(F.cross_entropy(logits, torch.tensor([0, 2, 1, 1]))), divergence_by_hand(logits, taught, 2.0))
    loss = float(total(METHODS["kd"].objective(replace(CONTEXT, settings=KdSettings()))(logits, b)))
    assert loss == pytest.approx(0.5 * parts[0] + 0.5 * parts[1], abs=1e-5)


def test_erm_uses_only_the_labels() -> None:
    logits = torch.randn(4, 3)

    def objective(logits: Tensor, b: Batch) -> Tensor:
        return total(METHODS["erm"].objective(CONTEXT)(logits, b))

    labelled = float(objective(logits[:2], batch([2, 0])))
    assert labelled == pytest.approx(float(F.cross_entropy(logits[:2], torch.tensor([2, 0]))), abs=1e-6)
    assert float(objective(logits, batch([2, 0, -1, -1]))) == pytest.approx(labelled, abs=1e-6)
    assert float(objective(logits, batch([-1] * 4))) == 0
    with pytest.raises(ValueError, match="labels"):
        objective(logits, Batch(logits, logits, logits))


@pytest.mark.parametrize("name", ["erm", "kd"])
def test_baselines_train_their_last_layer_with_the_backbone(name: str) -> None:
    torch.manual_seed(0)
    f = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layer = nn.Linear(5, 3)
    before = {key: value.detach().clone() for key, value in trainable(f, layer).items()}
    method = METHODS[name]
    objective = method.objective(replace(CONTEXT, settings=method.settings()))
    done = distill(f, layer, [batch([0, 1, 2, 0])] * 30, objective=objective, train_projection=True, learning_rate=1e-2)
    assert done.losses[-1] < done.losses[0] - 0.1
    assert set(before) >= {"0.weight", "1.weight", "projection/weight", "projection/bias"}
    assert not any(torch.equal(value, before[key]) for key, value in trainable(f, layer).items())
