"""Threads that each compute a part of a batch give the same result as one computation of the full batch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from vl2v.method.distill import Projected
from vl2v.shards import SMALLEST, Shards, divisible, sharding


@pytest.fixture(autouse=True)
def four() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def network(*more: nn.Module) -> Projected:
    torch.manual_seed(0)
    convolution = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), *more, nn.Flatten())
    return Projected(convolution, nn.Linear(8 * 36, 5)).train()


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def gradients(model: nn.Module, shards: Shards | None, count: int) -> list[Tensor]:
    """Return gradients of a loss that depends on the full batch, not only on the mean over images."""
    model.zero_grad()
    inputs = images(count)
    output = model(inputs) if shards is None else shards.train(model, inputs)
    (output.std(0, correction=0).sum() + (output @ output.T).softmax(-1).square().sum()).backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("count", [1, SMALLEST, 2 * SMALLEST, 17, 40])
def test_gradients_are_those_of_the_full_batch(count: int) -> None:
    model = network(nn.ReLU())
    next(model.backbone.parameters()).requires_grad_(False)
    full = gradients(model, None, count)
    with sharding(count) as shards:
        assert shards.count == max(1, min(4, count // SMALLEST))
        parts, again = gradients(model, shards, count), gradients(model, shards, count)
    assert len(full) == len(parts) == 5
    for expected, actual, repeated in zip(full, parts, again, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5)
        assert actual.equal(repeated), "in the same order each time"


def test_each_part_is_computed_by_a_separate_thread_with_its_share_of_threads() -> None:
    seen: list[tuple[int, int]] = []
    model = network()
    model.register_forward_pre_hook(lambda _, inputs: seen.append((len(inputs[0]), torch.get_num_threads())))
    with sharding(10) as shards:
        assert torch.get_num_threads() == 2
        assert shards.infer(model.eval(), images(10)).shape == (10, 5)
    assert sorted(seen) == [(5, 2), (5, 2)]
    assert torch.get_num_threads() == 4


def test_validation_during_training_uses_all_threads() -> None:
    with sharding(8) as outer:
        assert (outer.count, outer.threads, torch.get_num_threads()) == (2, 2, 2)
        with sharding(64) as inner:
            assert (inner.count, inner.threads, torch.get_num_threads()) == (4, 1, 1)
        assert torch.get_num_threads() == 2


def test_outputs_without_gradients_are_the_same() -> None:
    model = network().eval()
    with sharding(24) as shards:
        actual = shards.infer(model, images(24))
    assert not actual.requires_grad
    torch.testing.assert_close(actual, model(images(24)).detach(), rtol=1e-4, atol=1e-5)


def test_a_failure_in_a_thread_is_raised() -> None:
    class Broken(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            raise RuntimeError("no memory")

    with sharding(16) as shards, pytest.raises(RuntimeError, match="no memory"):
        shards.train(Broken(), images(16))
    assert torch.get_num_threads() == 4


class Statistics(nn.Module):
    """Depends on the other images of a batch."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs - inputs.mean(0)


@pytest.mark.parametrize(
    ("more", "expected"),
    [((), True), ((nn.Dropout(0.5),), False), ((nn.Dropout(0.0),), True), ((Statistics(),), False)],
)
def test_batches_that_cannot_be_divided_are_detected(more: tuple[nn.Module, ...], expected: bool) -> None:
    state = torch.get_rng_state()
    assert divisible(network(*more), images(3)) is expected
    assert torch.get_rng_state().equal(state)


def test_a_batch_is_not_divided_if_threads_would_lose_the_precision() -> None:
    with torch.autocast("cpu", torch.bfloat16), sharding(64) as shards:
        assert shards.count == 1
    with sharding(64, possible=False) as shards:
        assert (shards.count, torch.get_num_threads()) == (1, 4)
