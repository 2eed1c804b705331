"""Adam's state in the saved state of a run, and its learning rates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vl2v.runs.folder import State
from vl2v.training.weights import under


def set_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float], factor: float) -> None:
    """Every group's learning rate, `factor` times its own in `rates`."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor


def adam_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The moments and step counts by name, to save."""
    tensors: dict[str, Tensor] = {}
    for i, entry in optimizer.state_dict()["state"].items():
        tensors |= under(f"adam/{i}", entry)
    return tensors


def load_adam(optimizer: torch.optim.Optimizer, state: State | None) -> None:
    """Go on from what `adam_tensors` gave; without a state from the start.

    Raises:
        KeyError, ValueError: if it is another optimizer's.
    """
    if state is None:
        return
    content = optimizer.state_dict()
    count = sum(len(group["params"]) for group in content["param_groups"])
    entries = {i: state.part(f"adam/{i}") for i in range(count)}
    content["state"] = {i: entry for i, entry in entries.items() if entry}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for i, entry in content["state"].items():
        for name in ("exp_avg", "exp_avg_sq"):
            if entry[name].shape != parameters[i].shape:
                raise ValueError(f"{name} {list(entry[name].shape)} of a parameter {list(parameters[i].shape)}")
    optimizer.load_state_dict(content)
