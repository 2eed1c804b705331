from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_baselines import CONTEXT, batch, divergence_by_hand
from torch import nn

from vl2v.method.baselines.rise import RiseSettings
from vl2v.method.baselines.text_distance import EmbeddingClassifier, relative_distance, text_distance
from vl2v.method.distill import distill
from vl2v.method.loop import total
from vl2v.method.registry import METHODS
from vl2v.student.model import cosine_logits

HEAD = CONTEXT.head  # [3, 4]


def test_the_distance_agrees_with_a_computation_by_hand() -> None:
    embedding = torch.tensor([[3.0, 0, 0, 0], [0, 2, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    text = HEAD[[0, 0, 1, 2]]
    parts = [0.0, 1.0, 1 - math.sqrt(0.5), 1.0]
    assert float(text_distance(embedding, text)) == pytest.approx(sum(parts) / 4, abs=1e-6)
    labelled = torch.tensor([True, False, True, False])
    assert float(text_distance(embedding, text, labelled)) == pytest.approx((parts[0] + parts[2]) / 2, abs=1e-6)
    assert float(text_distance(embedding, text, torch.zeros(4, dtype=torch.bool))) == 0
    assert float(text_distance(text * 7, text)) == pytest.approx(0, abs=1e-6)
    assert float(text_distance(-text, text)) == pytest.approx(2, abs=1e-6)


def test_the_relative_distance_agrees_with_a_computation_by_hand() -> None:
    anchors = torch.tensor([[[1.0, 0, 0, 0], [0, 5, 0, 0]]]).expand(2, 2, 4)
    text, embedding = torch.tensor([[1.0, 0, 0, 0]] * 2), torch.tensor([[0.0, 2, 0, 0], [3, 0, 0, 0]])
    share = math.e / (math.e + 1)  # softmax of the cosines (1, 0)
    by_hand = 10 * (2 * share - 1) ** 2  # both anchors have the same difference
    assert float(relative_distance(embedding[:1], text[:1], anchors[:1])) == pytest.approx(by_hand, abs=1e-6)
    assert float(relative_distance(embedding, text, anchors)) == pytest.approx(by_hand / 2, abs=1e-6)
    assert float(relative_distance(embedding, text, anchors, torch.tensor([False, True]))) == 0
    assert float(relative_distance(text * 3, text, anchors)) == pytest.approx(0, abs=1e-9)


def test_anchors_add_the_relative_distance() -> None:
    b, output, anchors = batch([0, 2, -1, 1]), torch.randn(4, 7), torch.randn(3, 2, 4)
    settings = RiseSettings(distance=0.5)
    without, with_them = (
        float(total(METHODS["rise"].objective(replace(CONTEXT, settings=settings, texts=a))(output, b)))
        for a in (None, anchors)
    )
    added = relative_distance(output[:, 3:], b.teacher_text, anchors[[0, 2, 0, 1]], b.labelled)
    assert with_them - without == pytest.approx(0.5 * float(added), abs=1e-5)
    assert float(added) > 0


def test_the_loss_is_its_three_parts() -> None:
    b, output = batch([0, 2, 1, 1]), torch.randn(4, 3 + 4)
    logits, embedding = output[:, :3], output[:, 3:]
    taught = cosine_logits(b.teacher_image, HEAD, CONTEXT.logit_scale)
    parts = (
        divergence_by_hand(logits, taught, 1.5),
        float(F.cross_entropy(logits, torch.tensor([0, 2, 1, 1]))),
        float((1 - F.cosine_similarity(embedding, b.teacher_text)).mean()),
    )
    settings = RiseSettings(temperature=1.5, teacher_share=0.8, distance=0.5)
    loss = float(total(METHODS["rise"].objective(replace(CONTEXT, settings=settings))(output, b)))
    assert loss == pytest.approx(0.8 * parts[0] + 0.2 * parts[1] + 0.5 * parts[2], abs=1e-5)


def test_rows_without_a_label_learn_only_from_the_teacher() -> None:
    b, output = batch([-1, -1]), torch.randn(2, 7, requires_grad=True)
    loss = total(METHODS["rise"].objective(replace(CONTEXT, settings=RiseSettings()))(output, b))
    torch.autograd.backward(loss)
    assert output.grad is not None
    assert bool(output.grad[:, :3].any())
    assert not output.grad[:, 3:].any()


def test_the_saved_layer_gives_the_same_logits() -> None:
    torch.manual_seed(0)
    layer, features = EmbeddingClassifier(5, HEAD), torch.randn(6, 5)
    assert layer.classifier.weight.equal(HEAD)
    with torch.no_grad():
        layer.classifier.weight.add_(torch.randn(3, 4))
        layer.classifier.bias.copy_(torch.randn(3))
    saved = METHODS["rise"].saved_layer(layer)
    assert isinstance(saved, nn.Linear)
    torch.testing.assert_close(saved(features), layer(features)[:, :3], atol=1e-5, rtol=1e-5)


def test_all_parameters_have_gradients() -> None:
    torch.manual_seed(0)
    f = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layer = EmbeddingClassifier(5, HEAD)
    before = {key: value.clone() for key, value in [*f.state_dict().items(), *layer.state_dict().items()]}
    objective = METHODS["rise"].objective(replace(CONTEXT, settings=RiseSettings()))
    done = distill(f, layer, [batch([0, 1, 2, 0])] * 30, objective=objective, train_projection=True, learning_rate=1e-2)
    assert done.losses[-1] < done.losses[0] - 0.1
    after = [*f.state_dict().items(), *layer.state_dict().items()]
    assert not any(value.equal(before[key]) for key, value in after)
