"""Number of threads for a student, in training and inference; see `vl2v.threads`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vl2v.config import RunConfig
from vl2v.evaluation.features import CHUNK
from vl2v.method.distill import Projected
from vl2v.method.registry import METHODS
from vl2v.shards import divisible, sharding
from vl2v.student.backbones import Backbone
from vl2v.student.model import Student
from vl2v.threads import choose

FEW = 8  # images at once, where a network only passes them through
_DIVISIBLE: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # whether a backbone can be sharded, once tried


def training_threads(config: RunConfig, backbone: Backbone, images: int, accelerator: Accelerator) -> int | None:
    """The number of threads to train with, from a few steps of the student; it stays as it was.

    Args:
        config: the run's settings; the number that they state is taken as it is.
        backbone: f, before training.
        images: of a batch, all processes together.
        accelerator: device, precision and processes.

    Returns:
        At least 1; None where another device than the CPU computes, and the number matters little.
    """
    if config.threads is not None or accelerator.device.type != "cpu":
        return config.threads
    if accelerator.num_processes > 1:  # who starts several on a machine also says how they share it
        return torch.get_num_threads()
    count = images if METHODS[config.method].trains_backbone else CHUNK
    with trial_steps(config, backbone, accelerator) as step:
        return choose(step, count, count * config.distill.steps)


@contextmanager
def trial_steps(config: RunConfig, backbone: Backbone, accelerator: Accelerator) -> Iterator[Callable[[int], None]]:
    """A call that does what a training step does to a number of images, but changes nothing."""
    trains = METHODS[config.method].trains_backbone
    module, side = backbone.module, backbone.preprocess.size
    model = Projected(module, nn.Identity()).to(memory_format=torch.channels_last)
    divided = not config.compile and can_shard(module, side, accelerator)

    def step(count: int) -> None:
        with sharding(count, divided) as shards:
            if trains:
                shards.train(model, _noise(count, side)).float().square().mean().backward()  # type: ignore[no-untyped-call]
            else:
                shards.infer(model, _noise(count, side))

    with as_it_was(module), accelerator.autocast():
        model.train(trains)
        yield step


def can_shard(backbone: nn.Module, side: int, accelerator: Accelerator, penalty: nn.Module | None = None) -> bool:
    """Return whether threads can each train on a part of a batch. The backbone is tried once and does not change.

    Args:
        backbone: f, which maps [N, 3, side, side].
        side: side length of the input in pixels.
        accelerator: device and processes.
        penalty: the penalty of the method, which is tried as well.
    """
    if accelerator.device.type != "cpu" or accelerator.num_processes > 1:
        return False
    if backbone not in _DIVISIBLE:
        _DIVISIBLE[backbone] = _divisible(Projected(backbone, nn.Identity()), side)
    return _DIVISIBLE[backbone] and (penalty is None or _divisible(Projected(backbone, nn.Identity(), penalty), side))


def _divisible(model: nn.Module, side: int) -> bool:
    with as_it_was(model), torch.autocast("cpu", enabled=False):
        return divisible(model.train(), _noise(2, side))


def student_threads(student: Student, total: int) -> int | None:
    """The number of threads for a student to look at `total` images with; None off the CPU."""
    if student.device.type != "cpu":
        return None
    side = student.preprocess.size

    def look(count: int) -> None:
        with sharding(count) as shards:
            shards.infer(student, _noise(count, side))

    return choose(look, min(FEW, max(1, total)), total)


@contextmanager
def as_it_was(module: nn.Module) -> Iterator[None]:
    """Afterwards, buffers, gradients and modes are what they were."""
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


def _noise(count: int, side: int) -> Tensor:
    return torch.rand(count, 3, side, side).contiguous(memory_format=torch.channels_last)
