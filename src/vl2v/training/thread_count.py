"""Number of threads for training and inference of a student; see `vl2v.threads`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from weakref import WeakKeyDictionary

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vl2v.config import RunConfig
from vl2v.evaluation.features import CHUNK
from vl2v.method.distill import Projected
from vl2v.method.registry import METHODS
from vl2v.micro_batch import InMicroBatches, MicroBatch
from vl2v.shards import divisible, sharding
from vl2v.student.backbones import Backbone
from vl2v.student.frozen import frozen
from vl2v.student.model import Student
from vl2v.threads import choose

FEW = 8  # images per batch for timing inference
_DIVISIBLE: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # whether a backbone can be sharded


def training_threads(config: RunConfig, backbone: Backbone, images: int, accelerator: Accelerator) -> int | None:
    """Return the number of threads for training by timing a few steps; None unless it runs on the CPU.

    Args:
        config: settings of the run. A number of threads in them is used.
        images: images per batch, of all processes together.
    """
    if config.threads is not None or accelerator.device.type != "cpu":
        return config.threads
    if accelerator.num_processes > 1:  # whoever starts several processes sets their number of threads
        return torch.get_num_threads()
    count = images if METHODS[config.method].trains_backbone else CHUNK
    with trial_steps(config, backbone, accelerator) as step:
        return choose(step, count, count * config.distill.steps)


@contextmanager
def trial_steps(
    config: RunConfig, backbone: Backbone, accelerator: Accelerator, micro: MicroBatch | None = None
) -> Iterator[Callable[[int], None]]:
    """Yield a function that computes a training step for a number of images. The backbone is not changed.

    Args:
        micro: number of images that are computed at once; None computes whole batches.
    """
    trains, device = METHODS[config.method].trains_backbone, accelerator.device
    module, side = backbone.module.to(device), backbone.preprocess.size
    micro = micro or MicroBatch()
    model = InMicroBatches(Projected(module, nn.Identity()).to(memory_format=torch.channels_last), micro)
    divided = not config.compile and can_shard(module, side, accelerator)
    noise = cache(partial(_noise, side=side, device=device))

    def step(count: int) -> None:
        with sharding(count, divided) as shards:
            micro.threads = shards.count
            if trains:
                shards.train(model, noise(count)).float().square().mean().backward()  # type: ignore[no-untyped-call]
            else:
                shards.infer(model, noise(count))

    with as_it_was(module), frozen(module, config.distill.freeze), accelerator.autocast():
        model.train(trains)
        yield step


def fastest(work: Callable[[], None], device: torch.device, tries: int) -> float:
    """Return the seconds of the fastest of several calls, after a first one that allocates and compiles."""
    times = []
    for _ in range(1 + tries):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def can_shard(backbone: nn.Module, side: int, accelerator: Accelerator) -> bool:
    """Whether threads can train on parts of a batch in parallel. The backbone is tested once and not changed.

    Args:
        backbone: maps [N, 3, side, side] to features.
        side: side length of the input in pixels.
    """
    if accelerator.device.type != "cpu" or accelerator.num_processes > 1:
        return False
    if backbone not in _DIVISIBLE:
        model = Projected(backbone, nn.Identity())
        with as_it_was(model), torch.autocast("cpu", enabled=False):
            _DIVISIBLE[backbone] = divisible(model.train(), _noise(2, side))
    return _DIVISIBLE[backbone]


def student_threads(student: Student, total: int) -> int | None:
    """Return the number of threads for the inference of `total` images; None if it does not run on the CPU."""
    if student.device.type != "cpu":
        return None
    side = student.preprocess.size

    def infer(count: int) -> None:
        with sharding(count) as shards:
            shards.infer(student, _noise(count, side))

    return choose(infer, min(FEW, max(1, total)), total)


@contextmanager
def as_it_was(module: nn.Module) -> Iterator[None]:
    """Restore buffers, gradients and modes of a module when the block ends."""
    modes = {part: part.training for part in module.modules()}
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            for part, mode in modes.items():
                part.training = mode
            with torch.no_grad():
                for name, buffer in module.named_buffers():
                    buffer.copy_(buffers[name])
            for parameter in module.parameters():
                parameter.grad = None


def _noise(count: int, side: int, device: torch.device | str = "cpu") -> Tensor:
    return torch.rand(count, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
