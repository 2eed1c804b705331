"""Parallel computation of the parts (shards) of a batch on a CPU, one thread each.

OpenMP divides every layer among its threads, which wait for each other at its end. Threads that compute different
images wait once per step instead: they are faster on an idle machine, and next to other work they lose little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

SMALLEST = 4  # images per shard
T = TypeVar("T")

_divided: ContextVar[int | None] = ContextVar("divided", default=None)  # threads before they were divided


class Shards:
    """Threads that each compute one part of every batch.

    Args:
        count: number of parts, above 0. With 1, everything is computed by the calling thread.
    """

    def __init__(self, count: int, threads: int) -> None:
        self.count, self.threads = count, threads

    def train(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """Compute `module(inputs)` so that the parameters of the module receive gradients in a backward pass.

        The result is that of the whole batch up to rounding if the module treats every image by itself. Gradients are
        summed in the order of the parts, so they are reproducible.

        Args:
            module: maps [N, ...] to [N, ...].
            inputs: [N, ...]; receives no gradient.
        """
        parts = self._parts(inputs)
        if not parts:
            output: Tensor = module(inputs)
            return output
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        result: Tensor = _InShards.apply(self, module, parts, *parameters)
        return result

    def infer(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """Compute `module(inputs)` without gradients; arguments as for `train`."""
        with torch.no_grad():
            parts = self._parts(inputs)
            output: Tensor = torch.cat(self.map(torch.no_grad()(module), parts)) if parts else module(inputs)
            return output

    def map(self, function: Callable[..., T], *values: Iterable[Any]) -> list[T]:
        """Call a function on each value, all at once."""
        return list(_pool(self.count, self.threads).map(function, *values))

    def _parts(self, inputs: Tensor) -> list[Tensor]:
        """The parts of a batch; none if it is not worth dividing."""
        count = min(self.count, len(inputs) // SMALLEST)
        return list(inputs.tensor_split(count)) if count > 1 and inputs.device.type == "cpu" else []


class _InShards(torch.autograd.Function):
    """Forward and backward of the parts, each in its thread."""

    @staticmethod
    def forward(ctx: Any, shards: Shards, module: nn.Module, parts: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.shards, ctx.parameters = shards, parameters
        ctx.outputs = shards.map(torch.enable_grad()(module), parts)
        return torch.cat([output.detach() for output in ctx.outputs])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        sizes = [len(output) for output in ctx.outputs]

        def differentiate(output: Tensor, gradient: Tensor) -> Sequence[Tensor | None]:
            gradients: Sequence[Tensor | None] = torch.autograd.grad(
                output, ctx.parameters, gradient, allow_unused=True
            )
            return gradients

        parts = ctx.shards.map(differentiate, ctx.outputs, torch.split(gradients[0], sizes))
        sums = (None if of[0] is None else torch.stack(of).sum(0) for of in zip(*parts, strict=True))
        return None, None, None, *sums


@contextmanager
def sharding(images: int, possible: bool = True) -> Iterator[Shards]:
    """Divide the threads of torch among the shards of batches; inside, the calling thread has those of one shard.

    Inside another call, e.g. for validation during training, the threads of the outer call are divided again.

    Args:
        possible: false if a batch cannot be divided.
    """
    before, outer = torch.get_num_threads(), _divided.get()
    total = outer or before
    divided = possible and not torch.is_autocast_enabled("cpu")  # which is a state of the calling thread alone
    count = max(1, min(total, images // SMALLEST)) if divided else 1
    token = _divided.set(total)
    torch.set_num_threads(max(1, total // count))
    try:
        yield Shards(count, max(1, total // count))
    finally:
        torch.set_num_threads(before)
        _divided.reset(token)


def divisible(module: nn.Module, inputs: Tensor) -> bool:
    """Whether a module computes the same for the parts of a batch: no random numbers, no statistics of the batch.

    Args:
        module: in the mode in question.
        inputs: [N, ...], a sample on the module's device.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        state = torch.get_rng_state()
        batch_output, parts = module(inputs), torch.cat([module(inputs[:1]), module(inputs[1:])])
        return bool(torch.get_rng_state().equal(state) and torch.allclose(batch_output, parts, rtol=1e-3, atol=1e-4))


@cache
def _pool(count: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "shard", torch.set_num_threads, (threads,))
