"""A place where one training step runs over and over: all its tensors lie still, so that a CUDA graph can replay it.

Trained weights lie in one flat tensor, of which the network's parameters are views. Adam, the running average and
their starts are then a handful of operations on flat tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from timm.models import group_parameters
from torch import Tensor, nn

from lab_parts.goals import Goals
from lab_parts.objective import Shape, Step, Tables, objective
from lab_parts.variant import Variant

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # torch.optim.Adam's
Forward = Callable[[list[Tensor], Tensor], Tensor]


@dataclass(frozen=True)
class Engine:
    """How steps are run.

    Attributes:
        device: where.
        graphs: replay CUDA graphs.
        half: bfloat16 in the backbone.
        compiled: compile the backbone.
        channels_last: memory layout of the backbone's tensors.
        chunk: steps prepared at once.
    """

    device: torch.device
    graphs: bool = False
    half: bool = False
    compiled: bool = False
    channels_last: bool = True
    chunk: int = 32


@dataclass(frozen=True)
class Schedule:
    """The numbers of each of T steps, and which images it sees.

    Attributes:
        rows: [T, B] int64.
        partner: [T, B] int64, within the batch.
        share: [T, B] float32.
        style: [T, B] int64.
        rates: [T, 2] float32, Adam's rate over its first bias correction, and one over the root of its second.
        keep: [T] float32, the part of the current weights that enters the running average; 0 leaves it as it is.
    """

    rows: Tensor
    partner: Tensor
    share: Tensor
    style: Tensor
    rates: Tensor
    keep: Tensor


def adam_rates(rates: Sequence[float]) -> Tensor:
    """[T, 2] for `Schedule.rates`, from the learning rate of each step."""
    powers = np.arange(1, len(rates) + 1)
    first = np.array(rates) / (1 - BETA1**powers)
    return torch.tensor(np.stack([first, 1 / np.sqrt(1 - BETA2**powers)], axis=1), dtype=torch.float32)


def mean_from(steps: int, first: int) -> Tensor:
    """[T] for `Schedule.keep`: the plain mean of the weights from step `first` on."""
    return torch.tensor([0.0 if s < first else 1 / (s - first + 1) for s in range(steps)])


def moving(steps: int, decay: float) -> Tensor:
    """[T] for `Schedule.keep`: an exponential moving average; a decay of 0 keeps the last weights."""
    return torch.tensor([1.0, *[1 - decay] * (steps - 1)])


class Network:
    """The pretrained backbone as a function of its parameters.

    Args:
        module: in eval mode throughout, so that statistics of batch norm do not change and dropout is off.
        engine: how it runs.
    """

    def __init__(self, module: nn.Module, engine: Engine) -> None:
        self.module, self.engine = module, engine
        named = dict(module.named_parameters())
        self.names, self.shapes = list(named), [p.shape for p in named.values()]
        self.start = torch.cat([_flattened(p.detach()) for p in named.values()])
        self.forward: Forward = torch.compile(self.eager, dynamic=False) if engine.compiled else self.eager

    def frozen(self, parts: int) -> int:
        """Number of parameters in the first `parts` of stem and stages, which come first among the parameters."""
        if not parts:
            return 0
        named = group_parameters(self.module, self.module.group_matcher(coarse=True))  # type: ignore[operator]
        return sum(len(named[group]) for group in sorted(named)[:parts])

    def views(self, flat: Tensor) -> list[Tensor]:
        """The parameters as views of the first part of a flat tensor, convolutions in channels_last order."""
        sizes = [math.prod(shape) for shape in self.shapes]
        parts = torch.split(flat[: sum(sizes)], sizes)
        return [_shaped(part, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def eager(self, parameters: list[Tensor], pixels: Tensor) -> Tensor:
        """[B, 3, S, S] uint8 to [B, F] float32."""
        layout = torch.channels_last if self.engine.channels_last else torch.contiguous_format
        inputs = ((pixels.float() / 255 - 0.5) / 0.5).to(memory_format=layout)
        named = dict(zip(self.names, parameters, strict=True))
        with torch.autocast(self.engine.device.type, torch.bfloat16, enabled=self.engine.half):
            features: Tensor = torch.func.functional_call(self.module, named, (inputs,))
        return features.float()


def _flattened(parameter: Tensor) -> Tensor:
    return parameter.permute(0, 2, 3, 1).reshape(-1) if parameter.ndim == 4 else parameter.reshape(-1)


def _shaped(flat: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) != 4:
        return flat.view(shape)
    out, within, height, width = shape
    return flat.view(out, height, width, within).permute(0, 3, 1, 2)


class Slot:
    """Static tensors and the captured step of one job at a time.

    Args:
        network: the backbone; None trains the layer after it on `pretrained`, as Align does.
        pretrained: [N, F] features of every image before training.
        goals: of the first job; later ones must have the same shapes.
        variant: likewise.
        engine: how steps run.
        size: side of the images in pixels.
    """

    def __init__(
        self, network: Network | None, pretrained: Tensor, goals: Goals, variant: Variant, engine: Engine, size: int
    ) -> None:
        self.network, self.pretrained, self.engine = network, pretrained, engine
        self.shape = shape_of(variant)
        self.frozen = network.frozen(variant.freeze) if network else 0
        outputs = goals.head.shape[0] if variant.linear else goals.head.shape[1]
        self.layer = (outputs, pretrained.shape[1])
        self.layer_size = outputs * pretrained.shape[1] + outputs + 1
        start = network.start.to(engine.device) if network else torch.zeros(0, device=engine.device)
        device, steps, batch = engine.device, engine.chunk, variant.batch
        self.flat = torch.cat([start, torch.zeros(self.layer_size, device=device)])
        self.start, self.average = self.flat.clone(), self.flat.clone()
        self.first, self.second = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.factor = torch.ones_like(self.flat)
        self.tables = Tables.of(goals, variant)
        self.pixels = torch.zeros(steps if network else 0, batch, 3, size, size, dtype=torch.uint8, device=device)
        self.step = torch.zeros(1, dtype=torch.int64, device=device)
        rows, partner, style = torch.zeros(3, steps, batch, dtype=torch.int64, device=device)
        share, rates = torch.ones(steps, batch, device=device), torch.ones(steps, 2, device=device)
        self.loaded = Schedule(rows, partner, share, style, rates, torch.zeros(steps, device=device))
        self.losses = torch.zeros(steps, device=device)
        self.leaves = self.leaves_of(self.flat)
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.graph: torch.cuda.CUDAGraph | None = None
        self.note = ""

    def leaves_of(self, flat: Tensor) -> list[Tensor]:
        """Backbone parameters, then weight, bias and log gain of the layer after it; leaves that share `flat`."""
        outputs, inputs = self.layer
        last = flat[len(flat) - self.layer_size :]
        weight, bias, gain = torch.split(last, [outputs * inputs, outputs, 1])
        parts = [*(self.network.views(flat) if self.network else []), weight.view(outputs, inputs), bias, gain]
        return [part.detach().requires_grad_(i >= self.frozen) for i, part in enumerate(parts)]

    def resize(self, size: int) -> None:
        """Take images of another size from now on; a captured graph of the size before is dropped."""
        if size != self.pixels.shape[-1]:
            self.pixels = self.pixels.new_zeros(*self.pixels.shape[:3], size, size)
            self.graph = None

    def on_stream(self) -> AbstractContextManager[None]:
        """Use the stream of this slot in the block."""
        return torch.cuda.stream(self.stream)

    def begin(self, goals: Goals, variant: Variant, layer: Tensor, factors: tuple[float, float]) -> None:
        """Make ready for another job.

        Args:
            goals: its targets.
            variant: its settings.
            layer: [outputs * F + outputs + 1] weight, bias and log gain to start from.
            factors: of the learning rate, for weight and bias, and for the log gain; 0 leaves them as they are.
        """
        if self.stream is not None:  # tensors that were created on another stream
            self.stream.wait_stream(torch.cuda.default_stream(self.engine.device))
        self.tables.fill(goals, variant)
        size = self.layer_size
        self.start[len(self.start) - size :] = layer
        self.flat.copy_(self.start)
        self.average.copy_(self.start)
        self.first.zero_()
        self.second.zero_()
        self.factor.fill_(1)
        self.factor[len(self.factor) - size :] = factors[0]
        self.factor[-1] = factors[1]

    def load(self, schedule: Schedule, begin: int, end: int) -> None:
        """Take over the numbers of the steps from `begin` to before `end`, at most `chunk` of them."""
        for name, loaded in vars(self.loaded).items():
            loaded[: end - begin] = moved(getattr(schedule, name)[begin:end], self.engine.device)
        self.step.zero_()

    def run(self, count: int) -> None:
        """Run as many of the loaded steps."""
        if self.engine.graphs and self.graph is None and not self.note:
            self._capture()
        for _ in range(count):
            if self.graph is not None:
                self.graph.replay()
            else:
                self._step()

    def _capture(self) -> None:
        """Capture a step and restore the state that trial runs changed. If capturing fails, steps run one by one."""
        still = (self.flat, self.average, self.first, self.second, self.step, self.losses)
        before = [tensor.clone() for tensor in still]
        try:
            for _ in range(2):
                self._step()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self.stream):
                self._step()
            self.graph = graph
        except Exception as error:  # whatever a driver or kernel has against it
            self.note = f"no graph: {error}"[:300]
            print(self.note, flush=True)
            torch.cuda.synchronize()
        for tensor, value in zip(still, before, strict=True):
            tensor.copy_(value)

    def _step(self) -> None:
        """Loss, gradient, Adam, running average; everything on the device."""
        i = self.step
        now = Schedule(*(numbers.index_select(0, i).squeeze(0) for numbers in vars(self.loaded).values()))
        *parameters, weight, bias, gain = self.leaves
        before = self.pretrained[now.rows]
        with torch.enable_grad():
            if self.network is None:
                features = before
            else:
                features = self.network.forward(parameters, self.pixels.index_select(0, i).squeeze(0))
            out = F.linear(features, weight, bias)
            step = Step(now.rows, now.partner, now.share, now.style)
            loss = objective(out, features, before, gain.squeeze(0), step, self.tables, self.shape)
            trained = torch.autograd.grad(loss, self.leaves[self.frozen :], allow_unused=True)
        gradients = (*[None] * self.frozen, *trained)
        parts = [
            _flattened(g if g is not None else torch.zeros_like(p)) for g, p in zip(gradients, self.leaves, strict=True)
        ]
        self._adam(torch.cat(parts), now.rates)
        self.average.lerp_(self.flat, now.keep)
        self.losses.index_copy_(0, i, loss.detach().view(1))
        self.step.add_(1)

    def _adam(self, gradient: Tensor, rates: Tensor) -> None:
        """torch.optim.Adam's update, plus the pull to the start."""
        gradient = gradient.addcmul(self.flat - self.start, 2 * self.tables.numbers[7])
        self.first.lerp_(gradient, 1 - BETA1)
        self.second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        change = self.first / (self.second.sqrt().mul_(rates[1]).add_(EPS))
        self.flat.sub_(change.mul_(self.factor).mul_(rates[0]))


def shape_of(variant: Variant) -> Shape:
    """The settings of a variant that a slot fixes."""
    return Shape(variant.linear, variant.bank_top if variant.bank else -1)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """To the device without waiting for it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)
