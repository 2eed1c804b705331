"""A batch that is computed in parts, one after the other, gives the same result as the full batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vl2v.errors import TrainingError
from vl2v.method.base import Context
from vl2v.method.distill import Projected, distill
from vl2v.method.loop import Batch, total
from vl2v.method.registry import BUILT_IN, METHODS
from vl2v.micro_batch import InMicroBatches, MicroBatch, out_of_memory
from vl2v.shards import Shards
from vl2v.training.parts import LossParts

CLASSES, DIMENSION, FEATURES = 3, 4, 6


class Backbone(nn.Module):
    """A small network that records its batch sizes and has memory for a limited number of images in training."""

    def __init__(self, most: int = 10**6, backward: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout))
        self.end = nn.Linear(4 * 36, FEATURES)
        self.most, self.backward, self.seen = most, backward, list[int]()

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(len(inputs))
        if not self.backward:
            self._allocate(inputs)
        features: Tensor = self.end(self.layers(inputs).flatten(1))
        if self.backward and features.requires_grad:
            features.register_hook(self._allocate)  # type: ignore[no-untyped-call]
        return features

    def _allocate(self, rows: Tensor) -> None:
        if self.training and len(rows) > self.most:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {len(rows)} images")


def batch(seed: int, images: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (images,), generator=generator)
    pixels = torch.randn(images, 3, 8, 8, generator=generator)
    embeddings = torch.randn(images, DIMENSION, generator=generator)
    labels[0] = -1
    return Batch(pixels, embeddings, torch.eye(CLASSES, DIMENSION)[labels.clamp(min=0)], labels >= 0, labels)


def gradients(model: nn.Module, loss: Callable[[Tensor], Tensor], inputs: Tensor) -> tuple[float, list[Tensor]]:
    model.zero_grad()
    value = loss(model(inputs))
    value.backward()  # type: ignore[no-untyped-call]
    return float(value), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("size", [1, 3, 8])
def test_every_method_has_the_loss_and_the_gradients_of_the_full_batch(name: str, size: int) -> None:
    method, head = METHODS[name], torch.eye(CLASSES, DIMENSION)
    context: Context[Any] = Context(head, 10.0, method.settings(), texts=torch.randn(CLASSES, 2, DIMENSION))
    torch.manual_seed(1)
    width = CLASSES if method.classifier == "linear" else DIMENSION
    layer = method.layer(FEATURES, head) if method.layer else nn.Linear(FEATURES, width)
    backbone = Backbone()
    penalty = method.penalty(backbone, torch.zeros(2, 3, 8, 8)) if method.penalty else None
    model, one = Projected(backbone, layer, penalty).train(), batch(3)

    def loss(output: Tensor) -> Tensor:
        return total(method.objective(context)(output, one))

    full = gradients(model, loss, one.inputs)
    backbone.seen.clear()
    parts = gradients(InMicroBatches(model, MicroBatch(size)), loss, one.inputs)
    assert max(backbone.seen) == size
    assert parts[0] == pytest.approx(full[0], rel=1e-5)
    assert len(parts[1]) == len(full[1]) > 3
    for actual, expected in zip(parts[1], full[1], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_the_backward_pass_repeats_the_random_numbers_of_the_forward_pass() -> None:
    model, inputs = Projected(Backbone(dropout=0.5), nn.Linear(FEATURES, DIMENSION)).train(), batch(0).inputs

    def loss(output: Tensor) -> Tensor:
        return (output @ output.T + torch.rand(())).softmax(-1).square().sum()

    torch.manual_seed(5)
    actual = gradients(InMicroBatches(model, MicroBatch(3)), loss, inputs)
    after = torch.rand(2)
    torch.manual_seed(5)
    model.zero_grad()
    value = loss(torch.cat([model(part) for part in torch.split(inputs, 3)]))
    expected_after = torch.rand(2)
    value.backward()  # type: ignore[no-untyped-call]
    assert actual[0] == pytest.approx(float(value))
    for one, parameter in zip(actual[1], (p for p in model.parameters() if p.grad is not None), strict=True):
        torch.testing.assert_close(one, parameter.grad)
    assert after.equal(expected_after), "afterwards as after one forward pass"


def test_autocast_applies_in_the_backward_pass() -> None:
    backbone, inputs, seen = Backbone(), batch(0).inputs, list[torch.dtype]()
    model = Projected(backbone, nn.Linear(FEATURES, DIMENSION)).train()
    backbone.end.register_forward_hook(lambda *given: seen.append(given[2].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        value = InMicroBatches(model, MicroBatch(3))(inputs).float().square().sum()
    value.backward()
    assert seen == 6 * [torch.bfloat16]
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in backbone.end.parameters())


def train(micro: MicroBatch | None, backbone: Backbone, **more: Any) -> tuple[list[float], dict[str, Tensor]]:
    torch.manual_seed(1)
    projection = nn.Linear(FEATURES, DIMENSION)
    torch.manual_seed(2)
    actual = distill(backbone, projection, [batch(step) for step in range(3)], learning_rate=1e-2, micro=micro, **more)
    return actual.losses, copy.deepcopy(backbone.state_dict())


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("more", [{}, {"accelerator": True}, {"shards": 2}], ids=["plain", "accelerator", "threads"])
def test_a_step_without_memory_is_repeated_with_half(backward: bool, more: dict[str, Any]) -> None:
    options: dict[str, Any] = {"accelerator": Accelerator(cpu=True)} if "accelerator" in more else {}
    options |= {"shards": Shards(2, 1)} if "shards" in more else {}
    dropout = 0.0 if "shards" in more else 0.4
    notes, most = list[str](), 1 if "shards" in more else 2
    micro = MicroBatch(note=notes.append)
    short = train(micro, Backbone(most, backward, dropout), **options)
    from_the_start = train(MicroBatch(2), Backbone(dropout=dropout), **options)
    assert micro.size == 2
    assert short[0] == from_the_start[0]
    assert all(short[1][name].equal(tensor) for name, tensor in from_the_start[1].items())
    assert len(notes) == 1
    assert "8 images at once; a step now computes 2 at a time" in notes[0]


def test_one_image_that_does_not_fit_is_an_error() -> None:
    backbone = Backbone(most=0)
    before = copy.deepcopy(backbone.state_dict())
    with pytest.raises(TrainingError, match=r"single image.*\n.*(\n.*)*smaller --size") as actual:
        train(MicroBatch(), backbone)
    assert isinstance(actual.value.__cause__, torch.OutOfMemoryError)
    assert all(backbone.state_dict()[name].equal(tensor) for name, tensor in before.items())


def test_one_process_of_several_does_not_repeat_a_step() -> None:
    with pytest.raises(TrainingError, match="micro_batch=4"):
        train(MicroBatch(processes=2), Backbone(most=2))


def test_other_errors_are_raised() -> None:
    class Broken(Backbone):
        def forward(self, inputs: Tensor) -> Tensor:
            raise RuntimeError("a shape does not fit")

    with pytest.raises(RuntimeError, match="shape"):
        train(MicroBatch(), Broken())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (OSError("out of memory"), False),
    ],
)
def test_errors_of_running_out_of_memory_are_recognised(error: Exception, expected: bool) -> None:
    assert out_of_memory(error) is expected


def test_the_parts_of_a_loss_count_a_repeated_step_once() -> None:
    context: Context[Any] = Context(torch.eye(CLASSES, DIMENSION), 10.0, METHODS["adip"].settings())

    def sums(backbone: Backbone) -> dict[str, float]:
        parts = LossParts(METHODS["adip"].objective(context))
        train(MicroBatch(), backbone, objective=parts)
        return parts.sums(Accelerator(cpu=True))

    assert sums(Backbone(most=4, backward=True)) == pytest.approx(sums(Backbone()), rel=1e-4)


def test_parts_of_one_batch_after_another_are_added() -> None:
    parts = LossParts(lambda output, _: {"a": output.mean()})
    one = batch(0)
    for given in (one, replace(one), one):
        parts(torch.ones(2), given)
    assert parts.sums(Accelerator(cpu=True)) == {"a": 3.0}


def test_a_network_that_cannot_be_compiled_is_trained_without(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[int]()

    def compiled(module: nn.Module) -> Callable[[Tensor], Tensor]:
        def call(inputs: Tensor) -> Tensor:
            calls.append(len(inputs))
            raise RuntimeError("no compiler")

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    notes = list[str]()
    actual = train(MicroBatch(note=notes.append, compiled=True), Backbone(dropout=0.4))
    expected = train(MicroBatch(), Backbone(dropout=0.4))
    assert actual[0] == expected[0]
    assert all(actual[1][name].equal(tensor) for name, tensor in expected[1].items())
    assert calls == [8]
    assert notes == ["torch.compile failed; training continues without it (RuntimeError: no compiler)"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [None, 4])
def test_a_compiled_network_trains_as_without(size: int | None) -> None:
    notes = list[str]()
    actual = train(MicroBatch(size, notes.append, compiled=True), Backbone())
    expected = train(MicroBatch(), Backbone())
    assert notes == []
    assert actual[0] == pytest.approx(expected[0], rel=1e-4)
    assert list(actual[1]) == list(expected[1]), "no prefix in the names"
    for name, tensor in expected[1].items():
        torch.testing.assert_close(actual[1][name], tensor, rtol=1e-3, atol=1e-4)
