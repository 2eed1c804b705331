"""Adam for a training stage: parameter groups, learning rates, and saved state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vl2v.config import RunConfig
from vl2v.method.distill import trainable
from vl2v.method.loop import adam
from vl2v.method.registry import METHODS
from vl2v.runs.folder import State
from vl2v.schema import AlignConfig, DistillConfig
from vl2v.training.weights import under


def adam_of(
    config: RunConfig,
    settings: AlignConfig | DistillConfig,
    weights: Mapping[str, nn.Parameter],
    penalty: nn.Module | None = None,
) -> torch.optim.Adam:
    """Return Adam with the settings of a stage.

    Parameters with a learning rate of their own form further groups: first the `extra_parameters` of the method,
    without weight decay, then the parameters of its penalty.

    Args:
        weights: trained parameters by name, see `trainable`.
    """
    method, own_settings = METHODS[config.method], config.method_settings
    extra_names = {f"projection/{name}" for name in method.extra_parameters} & weights.keys()
    parameters = [parameter for name, parameter in weights.items() if name not in extra_names]
    optimizer = adam(parameters, settings.learning_rate, settings.weight_decay)
    if extra_names:
        group = {"lr": method.extra_rate(own_settings), "weight_decay": 0.0}
        optimizer.add_param_group({"params": [weights[name] for name in sorted(extra_names)], **group})
    if penalty is not None:
        rate = settings.learning_rate * method.penalty_rate(own_settings)
        optimizer.add_param_group({"params": list(trainable(penalty).values()), "lr": rate})
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float], factor: float) -> None:
    """Set the learning rate of every group to `factor` times its entry in `rates`."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor


def adam_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the moments and step counts by name, for the training state."""
    tensors: dict[str, Tensor] = {}
    for i, entry in optimizer.state_dict()["state"].items():
        tensors |= under(f"adam/{i}", entry)
    return tensors


def load_adam(optimizer: torch.optim.Optimizer, state: State | None) -> None:
    """Load the tensors that `adam_tensors` returned; without a state, do nothing.

    Raises:
        KeyError, ValueError: if the state belongs to another optimizer.
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
