"""The weights that a run can save: averaged, best, last, and interpolations with the initial weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vl2v.config import DistillConfig, MeasureConfig
from vl2v.method.evaluation import Score
from vl2v.method.swad import LossValley
from vl2v.runs.folder import State

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class TrainedWeights:
    """What training leaves behind, by the names of `vl2v.method.distill.trainable`, on the CPU.

    Attributes:
        selected: the weights that the settings choose.
        alternatives: further sets of weights to evaluate, by name.
    """

    selected: Weights
    alternatives: dict[str, Weights]


class WeightSelector:
    """Holds the sets of weights that a run needs at its end, and no others.

    Args:
        settings: the weights to save.
        measure: the alternatives to evaluate.
    """

    def __init__(self, settings: DistillConfig, measure: MeasureConfig) -> None:
        self._settings, self._measure = settings, measure
        self._wanted = {settings.weights, *measure.weights}
        self._needs_start = settings.wise_ft < 1 or any(share < 1 for share in measure.wise_ft)
        self.swad = LossValley(**settings.swad.model_dump()) if "swad" in self._wanted else None
        self._best: tuple[float, Weights] = (-1.0, {})
        self._start: Weights = {}

    def begin(self, weights: Mapping[str, nn.Parameter]) -> None:
        """Store the initial weights; without effect if they are stored already."""
        if self._needs_start and not self._start:
            self._start = to_cpu(weights)

    def validated(self, score: Score, weights: Mapping[str, nn.Parameter]) -> None:
        """Store the current weights if no earlier ones were better by the metric of the settings."""
        value = score.accuracy if self._settings.metric == "accuracy" else score.macro
        assert value is not None  # of images
        if "best" in self._wanted and value >= self._best[0]:
            self._best = (value, to_cpu(weights))

    def trained(self, weights: Mapping[str, nn.Parameter]) -> TrainedWeights:
        """The selected weights and the alternatives, given the last step's `weights`."""
        sets: dict[str, Weights] = {"last": to_cpu(weights), "best": self._best[1]}
        if self.swad is not None:
            sets["swad"] = self.swad.average()
        own, share = sets[self._settings.weights], self._settings.wise_ft
        selected = None if share < 1 else self._settings.weights
        alternatives: dict[str, Weights] = {name: sets[name] for name in self._measure.weights if name != selected}
        alternatives |= {wise_ft_name(s): self._interpolated(own, s) for s in self._measure.wise_ft if s != share}
        return TrainedWeights(self._interpolated(own, share), alternatives)

    def _interpolated(self, weights: Weights, share: float) -> Weights:
        """(1 - share) * start + share * weights: WiSE-FT (Wortsman et al., CVPR 2022, Eq. 1)."""
        if share == 1:
            return weights
        return {name: self._start[name].lerp(tensor, share) for name, tensor in weights.items()}

    def state(self) -> tuple[Weights, dict[str, Any]]:
        """What `load_state` needs: (tensors by name, plain values)."""
        tensors = under("best", self._best[1]) | under("start", self._start)
        values: dict[str, Any] = {"best": self._best[0]}
        if self.swad is not None:
            segments, values["swad"] = self.swad.state()
            tensors |= under("swad", segments)
        return tensors, values

    def load_state(self, state: State) -> None:
        """Continue from what `state` returned."""
        self._best = (float(state.values["best"]), state.part("best"))
        self._start = state.part("start")
        if self.swad is not None:
            self.swad.load_state(state.part("swad"), state.values["swad"])


def wise_ft_name(share: float) -> str:
    """What weights interpolated with the start are called, `share` of them trained."""
    return f"wise-ft {share:g}"


def under(prefix: str, tensors: Mapping[str, Tensor]) -> Weights:
    """The same tensors, named ``prefix/<name>``."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def to_cpu(weights: Mapping[str, nn.Parameter]) -> Weights:
    """A copy of the weights as they are now, on the CPU."""
    return {name: parameter.detach().cpu().clone() for name, parameter in weights.items()}
