"""The weights that a run can save: averaged, best, last, and interpolations with the initial weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vl2v.method.evaluation import Score
from vl2v.method.swad import LossValley, Weights
from vl2v.runs.folder import State
from vl2v.schema import DistillConfig, MeasureConfig


@dataclass(frozen=True)
class TrainedWeights:
    """Sets of weights after training, on the CPU. Names are those of `vl2v.method.distill.trainable`.

    Attributes:
        selected: the weights that the settings select.
        alternatives: further sets of weights to evaluate, by name.
    """

    selected: Weights
    alternatives: dict[str, Weights]


class WeightSelector:
    """Stores those sets of weights during training that are needed at its end."""

    def __init__(self, settings: DistillConfig, measure: MeasureConfig) -> None:
        self._settings, self._measure = settings, measure
        self._names = {settings.weights, *measure.weights}
        self._needs_start = settings.wise_ft < 1 or any(share < 1 for share in measure.wise_ft)
        self.swad = LossValley(**settings.swad.model_dump()) if "swad" in self._names else None
        self._best: tuple[float, Weights] = (-1.0, {})
        self._start: Weights = {}

    def begin(self, weights: Mapping[str, nn.Parameter]) -> None:
        """Store the initial weights, unless they are stored already."""
        if self._needs_start and not self._start:
            self._start = to_cpu(weights)

    def validated(self, score: Score, weights: Mapping[str, nn.Parameter]) -> None:
        """Store the current weights if none before had a better score, by the metric of the settings."""
        value = score.accuracy if self._settings.metric == "accuracy" else score.macro
        if "best" in self._names and value >= self._best[0]:
            self._best = (value, to_cpu(weights))

    def trained(self, weights: Mapping[str, nn.Parameter]) -> TrainedWeights:
        """Return the selected weights and the alternatives, given the weights of the last step."""
        sets: dict[str, Weights] = {"last": to_cpu(weights), "best": self._best[1]}
        if self.swad is not None:
            sets["swad"] = self.swad.average()
        base, share = sets[self._settings.weights], self._settings.wise_ft
        selected = None if share < 1 else self._settings.weights
        alternatives: dict[str, Weights] = {name: sets[name] for name in self._measure.weights if name != selected}
        alternatives |= {wise_ft_name(s): self._interpolated(base, s) for s in self._measure.wise_ft if s != share}
        return TrainedWeights(self._interpolated(base, share), alternatives)

    def _interpolated(self, weights: Weights, share: float) -> Weights:
        """Return (1 - share) * start + share * weights: WiSE-FT (Wortsman et al., CVPR 2022, Eq. 1)."""
        if share == 1:
            return weights
        return {name: self._start[name].lerp(tensor, share) for name, tensor in weights.items()}

    def state(self) -> tuple[Weights, dict[str, Any]]:
        """Return the state for `load_state`: tensors by name, and plain values."""
        tensors = under("best", self._best[1]) | under("start", self._start)
        values: dict[str, Any] = {"best": self._best[0]}
        if self.swad is not None:
            segments, values["swad"] = self.swad.state()
            tensors |= under("swad", segments)
        return tensors, values

    def load_state(self, state: State) -> None:
        """Continue with a state that `state` returned."""
        self._best = (float(state.values["best"]), state.part("best"))
        self._start = state.part("start")
        if self.swad is not None:
            self.swad.load_state(state.part("swad"), state.values["swad"])


def load_weights(weights: Weights, parameters: Mapping[str, nn.Parameter]) -> None:
    """Copy weights to the parameters of the same names."""
    with torch.no_grad():
        for key, tensor in weights.items():
            parameters[key].copy_(tensor)


def wise_ft_name(share: float) -> str:
    """Return the name of weights with a share of the trained weights."""
    return f"wise-ft {share:g}"


def under(prefix: str, tensors: Mapping[str, Tensor]) -> Weights:
    """Return the tensors with the names ``prefix/<name>``."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def to_cpu(weights: Mapping[str, nn.Parameter]) -> Weights:
    """Return a copy of the current weights on the CPU."""
    return {name: parameter.detach().cpu().clone() for name, parameter in weights.items()}
