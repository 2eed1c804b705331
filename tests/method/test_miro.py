from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from test_baselines import CONTEXT, batch
from torch import Tensor, nn

from vl2v.method.baselines.miro import MiroSettings
from vl2v.method.baselines.oracle import Oracle, Variance, information_gap, recorded
from vl2v.method.distill import Projected, distill, trainable
from vl2v.method.loop import total
from vl2v.method.registry import METHODS


class Small(nn.Module):
    """Two named blocks, as timm describes them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Conv2d(4, 5, 3)
        self.feature_info = [{"module": "stem", "num_chs": 4}, {"module": "body", "num_chs": 5}]

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.body(self.norm(self.stem(x)).relu()).mean((2, 3))
        return pooled


SAMPLE = torch.zeros(2, 3, 8, 8)


def test_the_penalty_of_one_feature_agrees_with_a_computation_by_hand() -> None:
    f, o = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([[1.0, 0.0], [3.0, -1.0]])
    v = torch.tensor([[0.5, 4.0]])
    logs = (math.log(0.5) + math.log(4.0)) / 4
    assert information_gap(f, o, v).tolist() == pytest.approx([logs + 4 / 4.0 / 4, logs + 9 / 0.5 / 4], abs=1e-6)
    assert information_gap(o, o, torch.ones(1, 2)).tolist() == [0, 0]


def test_the_best_variance_is_the_mean_square() -> None:
    f, o = torch.randn(2, 64, 3, generator=torch.Generator().manual_seed(0))
    square = ((f - o) ** 2).mean(0, keepdim=True)
    best = information_gap(f, o, square).mean()
    assert all(information_gap(f, o, square * factor).mean() > best for factor in (0.5, 0.9, 1.1, 2))


def test_the_initial_variance_is_a_tenth() -> None:
    variance = Variance(5, 1, 4)
    assert variance.b.shape == (1, 5, 1, 1)
    torch.testing.assert_close(variance(), torch.full((1, 5, 1, 1), 0.1))
    with torch.no_grad():
        variance.b.fill_(-200)
    assert bool((variance() > 0).all())


def test_the_pretrained_student_has_no_distance() -> None:
    f = Small()
    penalty = Oracle(f, SAMPLE).train()
    images = torch.randn(4, 3, 8, 8)
    for module in (f.norm, penalty.oracle.norm):
        assert isinstance(module, nn.BatchNorm2d)
    features, penalties = penalty(Projected(f, nn.Identity()).train().backbone, images)
    assert features.equal(f.eval()(images))
    assert penalties.tolist() == pytest.approx([2 * math.log(0.1) / 2] * 4, abs=1e-5)


def test_the_penalty_of_every_block_agrees_with_a_computation_by_hand() -> None:
    f = Small().eval()
    penalty = Oracle(f, SAMPLE)
    with torch.no_grad():
        for parameter in f.parameters():
            parameter.add_(0.1)
    images = torch.randn(3, 3, 8, 8)
    with (
        recorded(f, ["stem", "body"]) as student_features,
        recorded(penalty.oracle, ["stem", "body"]) as oracle_features,
    ):
        f(images), penalty.oracle(images)
    wanted = sum(
        ((student_features[k] - oracle_features[k]) ** 2).mean((1, 2, 3)) / 0.1 / 2 + math.log(0.1) / 2
        for k in ("stem", "body")
    )
    assert isinstance(wanted, Tensor)
    torch.testing.assert_close(penalty(f, images)[1], wanted, atol=1e-4, rtol=1e-4)
    assert not any(module._forward_hooks for module in f.modules())


def test_only_student_and_variances_have_gradients() -> None:
    f = Small().eval()
    penalty = Oracle(f, SAMPLE)
    with torch.no_grad():
        f.stem.weight.add_(0.1)
    torch.autograd.backward(penalty(f, torch.randn(3, 3, 8, 8))[1].sum())
    assert all(p.grad is not None for p in f.parameters())
    assert all(p.grad is None for p in penalty.oracle.parameters())
    assert set(trainable(penalty)) == {"variances.0.b", "variances.1.b"}
    assert all(bool(p.grad.any()) for p in trainable(penalty).values() if p.grad is not None)


def test_the_loss_is_its_two_parts() -> None:
    b, output = batch([0, 2, 1]), torch.randn(3, 4)
    alone = float(F.cross_entropy(output[:, :3], torch.tensor([0, 2, 1])))
    objective = METHODS["miro"].objective(replace(CONTEXT, settings=MiroSettings(weight=0.7)))
    assert float(total(objective(output, b))) == pytest.approx(alone + 0.7 * float(output[:, 3].mean()), abs=1e-6)
    assert float(total(objective(output[:, :3], b))) == pytest.approx(alone, abs=1e-6)


def test_training_moves_the_student_and_the_variances_and_not_the_oracle() -> None:
    torch.manual_seed(0)
    f, layer = Small(), nn.Linear(5, 3)
    penalty = Oracle(f, SAMPLE)
    before = {key: value.clone() for key, value in penalty.state_dict().items()}
    done = distill(
        f,
        layer,
        [batch([0, 1, 2, 0])] * 30,
        objective=METHODS["miro"].objective(replace(CONTEXT, settings=MiroSettings())),
        train_projection=True,
        penalty=penalty,
        learning_rate=1e-2,
    )
    assert done.losses[-1] < done.losses[0] - 0.1
    moved = {key for key, value in penalty.state_dict().items() if not value.equal(before[key])}
    assert moved == {"variances.0.b", "variances.1.b"}
    assert Projected(f, layer, penalty).eval()(torch.randn(2, 3, 8, 8)).shape == (2, 3)


def far(weight: float) -> float:
    """Return the distance from the pretrained features after training."""
    torch.manual_seed(0)
    f, layer, images = Small(), nn.Linear(5, 3), batch([0, 1, 2, 0]).inputs
    penalty, first = Oracle(f, SAMPLE), f.eval()(images).detach()
    objective = METHODS["miro"].objective(replace(CONTEXT, settings=MiroSettings(weight=weight)))
    batches = [batch([0, 1, 2, 0])] * 30
    distill(f, layer, batches, objective=objective, train_projection=True, penalty=penalty, learning_rate=1e-2)
    return float((f.eval()(images).detach() - first).square().mean())


def test_a_greater_weight_ends_nearer_to_the_pretrained_features() -> None:
    assert far(10.0) < far(0.1) < far(0.0)


@pytest.mark.parametrize(
    ("name", "layers", "shape"),
    [
        ("test_resnet", ["act1", "layer1", "layer2", "layer3", "layer4"], (1, 32, 1, 1)),
        ("test_vit", ["blocks.0", "blocks.2", "blocks.3", "blocks.5"], (1, 1, 64)),
    ],
)
def test_the_compared_blocks_are_those_of_timm(name: str, layers: list[str], shape: tuple[int, ...]) -> None:
    f: Any = timm.create_model(name, num_classes=0)
    side = f.pretrained_cfg["input_size"][-1]
    penalty = Oracle(f, torch.zeros(2, 3, side, side))
    assert penalty.names == layers
    assert trainable(penalty)["variances.0.b"].shape == shape
    assert penalty(f.eval(), torch.randn(3, 3, side, side))[1].shape == (3,)


def test_a_backbone_without_known_blocks_is_compared_by_its_features() -> None:
    f = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    penalty = Oracle(f, SAMPLE)
    assert penalty.names == [""]
    assert penalty(f, torch.randn(3, 3, 8, 8))[1].tolist() == pytest.approx([math.log(0.1) / 2] * 3, abs=1e-5)
