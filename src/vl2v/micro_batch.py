"""Micro-batches: parts of a batch that are computed one after the other, so that a large batch fits into memory.

The loss sees the outputs of the whole batch. A step first computes these outputs without keeping what the backward pass
needs; the backward pass computes each part again and adds up its gradients. Loss and gradients are therefore those of
the whole batch up to rounding, whatever terms between images the loss has. A step takes about a third longer.

The result equals that of whole batches only if the network treats every image by itself. Dropout draws other random
numbers for other parts. Batch norm in training mode would compute the statistics of each part; `Projected` keeps it in
eval mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vl2v.errors import TrainingError, Vl2vError

ALLOCATORS = ("out of memory", "can't allocate memory", "not enough memory")  # what CUDA, MPS and the CPU report
T = TypeVar("T")


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or the CPU had no memory left for a tensor."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in ALLOCATORS)


class MicroBatch:
    """How many images a step computes at once. The number is halved whenever memory runs out.

    Args:
        size: number of images, above 0. None computes whole batches.
        note: receives one line when the number changes.
        processes: processes that train together. Of several, none can repeat a step, because the others wait for it.
        compiled: whether the network is compiled with torch.compile, until this fails.
    """

    def __init__(
        self,
        size: int | None = None,
        note: Callable[[str], None] = lambda _: None,
        processes: int = 1,
        compiled: bool = False,
    ) -> None:
        self.size, self.processes, self.compiled = size, processes, compiled
        self.threads = 1  # that share the images, see `vl2v.shards`
        self._note = note

    def attempt(self, images: int, work: Callable[[], T]) -> T:
        """Call a function; while memory runs out, halve the micro-batch and call it again.

        It is also called again, without torch.compile, if the compiled network raises an error.

        Args:
            work: computes them through `InMicroBatches`. It must change nothing that a repetition does not set again;
                the state of torch's random numbers is restored.

        Raises:
            TrainingError: if memory runs out with one image at a time, or while several processes train together.
        """
        before, restore = self.size, _random_state()
        while True:
            try:
                result = work()
                break
            except Exception as error:
                self._adapt(images, error)
            _free()  # out of the handler, whose traceback holds the tensors of the failed step
            restore()
        if self.size != before:
            self._note(
                f"memory ran out with {min(before or images, images)} images at once; a step now computes {self.size} "
                f"at a time. Its batch is still {images} images (micro_batch: {self.size})"
            )
        return result

    def _adapt(self, images: int, error: Exception) -> None:
        """Halve the micro-batch, or go on without torch.compile; raise an error if neither helps."""
        if isinstance(error, Vl2vError):
            raise error
        if not out_of_memory(error):
            if not self.compiled or self.processes > 1:
                raise error
            self.compiled = False  # an error of the network itself comes again without it
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            self._note(f"torch.compile failed; training continues without it ({found})")
            return
        now, found = min(self.size or images, images), " ".join(str(error).split())[:200] or "no memory left"
        if self.processes > 1:
            raise TrainingError(
                f"There is not enough memory for {now} images at once.",
                expected="memory for the forward and the backward pass",
                found=found,
                next_step=f"set it: --set micro_batch={max(1, now // 2)}. One process of several cannot repeat a step",
            ) from error
        if now == 1:
            raise TrainingError(
                "There is not enough memory for a single image.",
                expected="memory for the forward and the backward pass of one image",
                found=found,
                next_step="use a smaller --size, a smaller --student, or a device with more memory",
            ) from error
        self.size = now // 2


class InMicroBatches(nn.Module):
    """A network that computes a batch in parts.

    Args:
        module: maps [N, ...] to [N, ...], each image by itself.
        micro: the number of images at once, and whether the module is compiled. Both may change between calls. The
            compiled network shares its parameters with the module, whose state dict does not change.
    """

    def __init__(self, module: nn.Module, micro: MicroBatch) -> None:
        super().__init__()
        self.module, self.micro = module, micro
        # In a list, so that it is not a submodule, whose name would be a prefix of its parameters.
        self._compiled = [torch.compile(module)] if micro.compiled else []

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [N, ...] to [N, ...]. The parameters receive gradients, the inputs none."""
        size = max(1, self.micro.size // self.micro.threads) if self.micro.size else len(inputs)
        network = self._compiled[0] if self.micro.compiled else self.module
        if len(inputs) <= size:
            output: Tensor = network(inputs)
            return output
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        result: Tensor = _InParts.apply(network, torch.split(inputs, size), *parameters)
        return result


class _InParts(torch.autograd.Function):
    """Outputs of all parts; in the backward pass each part is computed again."""

    @staticmethod
    def forward(ctx: Any, module: nn.Module, parts: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        kind = parts[0].device.type
        enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        ctx.module, ctx.parts, ctx.parameters, ctx.random = module, parts, parameters, []
        ctx.autocast = partial(torch.autocast, kind, dtype, enabled)
        outputs = []
        with ctx.autocast(cache_enabled=False):  # a cached weight would have no gradient later
            for part in parts:
                ctx.random.append(_random_state())
                outputs.append(module(part))
        return torch.cat(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        sums: list[Tensor | None] = [None] * len(ctx.parameters)
        restore = _random_state()
        of_parts = torch.split(gradients[0], [len(part) for part in ctx.parts])
        for part, set_random, gradient in zip(ctx.parts, ctx.random, of_parts, strict=True):
            set_random()
            with torch.enable_grad(), ctx.autocast():  # the backward pass may have another thread
                output = ctx.module(part)
            part_gradients = torch.autograd.grad(output, ctx.parameters, gradient, allow_unused=True)
            for i, (total, more) in enumerate(zip(sums, part_gradients, strict=True)):
                sums[i] = more if total is None else total if more is None else total + more
        restore()
        return None, None, *sums


def _cuda() -> bool:
    return torch.cuda.is_available() and bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _random_state() -> Callable[[], None]:
    """Return a function that sets torch's random numbers to their present state."""
    states = [(torch.set_rng_state, torch.get_rng_state())]
    if _cuda():
        states.append((torch.cuda.set_rng_state, torch.cuda.get_rng_state()))
    if torch.backends.mps.is_available():
        states.append((torch.mps.set_rng_state, torch.mps.get_rng_state()))

    def restore() -> None:
        for put, state in states:
            put(state)

    return restore


def _free() -> None:
    """Return what the failed attempt had allocated to the device."""
    if _cuda():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
