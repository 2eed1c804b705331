"""The weights that a run can save: averaged, best, last, and interpolations with the initial weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vl2v.config import DistillConfig, MeasureConfig
from vl2v.method.swad import LossValley
from vl2v.runs.folder import State

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Trained:
    """What training leaves behind, by the names of `vl2v.method.distill.trainable`, on the CPU.

    Attributes:
        kept: the weights that the settings choose.
        beside: further ones that are to be measured, by name.
    """

    kept: Weights
    beside: dict[str, Weights]


class Shelf:
    """Holds a run's sets of weights while it trains, and only those that are asked for.

    Args:
        settings: which weights are kept.
        measure: which are measured beside.
    """

    def __init__(self, settings: DistillConfig, measure: MeasureConfig) -> None:
        self._settings, self._measure = settings, measure
        self._wanted = {settings.weights, *measure.weights}
        self._keeps_start = settings.wise_ft < 1 or any(share < 1 for share in measure.wise_ft)
        self.swad = LossValley(**settings.swad.model_dump()) if "swad" in self._wanted else None
        self._best: tuple[float, Weights] = (-1.0, {})
        self._start: Weights = {}

    def begin(self, weights: Mapping[str, nn.Parameter]) -> None:
        """Remember the weights before the first step; without effect where they are known already."""
        if self._keeps_start and not self._start:
            self._start = to_cpu(weights)

    def validated(self, accuracy: float, weights: Mapping[str, nn.Parameter]) -> None:
        """Take in the current weights if none before were more accurate."""
        if "best" in self._wanted and accuracy >= self._best[0]:
            self._best = (accuracy, to_cpu(weights))

    def trained(self, weights: Mapping[str, nn.Parameter]) -> Trained:
        """Everything that was asked for, from what was held and the last step's `weights`."""
        sets: dict[str, Weights] = {"last": to_cpu(weights), "best": self._best[1]}
        if self.swad is not None:
            sets["swad"] = self.swad.average()
        own, share = sets[self._settings.weights], self._settings.wise_ft
        kept = None if share < 1 else self._settings.weights
        beside: dict[str, Weights] = {name: sets[name] for name in self._measure.weights if name != kept}
        beside |= {wise_ft_name(s): self._interpolated(own, s) for s in self._measure.wise_ft if s != share}
        return Trained(self._interpolated(own, share), beside)

    def _interpolated(self, weights: Weights, share: float) -> Weights:
        """(1 - share) * start + share * weights: WiSE-FT (Wortsman et al., CVPR 2022, Eq. 1)."""
        if share == 1:
            return weights
        return {name: self._start[name].lerp(tensor, share) for name, tensor in weights.items()}

    def state(self) -> tuple[Weights, dict[str, Any]]:
        """Everything needed to go on: (tensors by name, plain values)."""
        tensors = under("best", self._best[1]) | under("start", self._start)
        values: dict[str, Any] = {"best": self._best[0]}
        if self.swad is not None:
            kept, values["swad"] = self.swad.state()
            tensors |= under("swad", kept)
        return tensors, values

    def load_state(self, state: State) -> None:
        """Go on from what `state` returned."""
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
