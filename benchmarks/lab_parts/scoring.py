"""Evaluation of a trained student on images that were not used for training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab_parts.dataset import Array, Dataset, Ints
from lab_parts.goals import Goals
from lab_parts.slot import Slot, moved
from vl2v.data.image_changes import CHANGES, PARAMETERS
from vl2v.trust.calibration import fit_temperature, reliability

CORRUPTIONS = ("blur", "noise", "darkness", "rotation", "blocks")
STYLES = ("edges", "poster", "recoloured")  # changes of style that need no other image
SEVERITY = 0.7  # the draws of a corruption, all alike
CHUNK = 200  # images per pass; every pass has this many, so that shapes do not change


@torch.no_grad()
def logits_of(
    slot: Slot, flat: Tensor, goals: Goals, pixels: Tensor, rows: dict[str, Ints], corruption: str = "", side: int = 0
) -> dict[str, Tensor]:
    """Logits [n, K] on the device by list of rows; K are all classes under a cosine head, else the seen ones.

    Args:
        slot: its network and shapes.
        flat: the weights.
        goals: text heads.
        pixels: [N, 3, S, S] uint8 at the student's size.
        rows: [n] each, by name.
        corruption: name of a change of the images.
        side: size in pixels that the images are resized to; 0 keeps theirs.
    """
    *_, weight, bias, gain = (leaf.detach() for leaf in slot.leaves_of(flat))
    everything = np.concatenate(list(rows.values()))
    logits = F.linear(features_of(slot, flat, pixels, everything, corruption, side), weight, bias)
    if not slot.shape.linear:
        logits = goals.scale * gain.exp() * F.normalize(logits, dim=-1) @ goals.full_head.T
    return dict(zip(rows, torch.split(logits, [len(part) for part in rows.values()]), strict=True))


@torch.no_grad()
def features_of(slot: Slot, flat: Tensor, pixels: Tensor, rows: Ints, corruption: str = "", side: int = 0) -> Tensor:
    """Features [n, F] of rows [n]; the other arguments are those of `logits_of`."""
    if slot.network is None:
        raise ValueError("expected a slot with a network")
    parameters, outputs = [leaf.detach() for leaf in slot.leaves_of(flat)[:-3]], []
    padded_rows = moved(torch.from_numpy(np.resize(rows, -(-len(rows) // CHUNK) * CHUNK)), pixels.device)
    for part in torch.split(padded_rows, CHUNK):
        images = resized(pixels[part], side) if side else pixels[part]
        if corruption:
            images = _corrupted(images, corruption)
        outputs.append(slot.network.eager(parameters, images))
    return torch.cat(outputs)[: len(rows)]


def resized(pixels: Tensor, side: int) -> Tensor:
    """[N, 3, side, side] uint8."""
    parts = [
        F.interpolate(part.float(), side, mode="bilinear", antialias=True, align_corners=False).round().to(torch.uint8)
        for part in torch.split(pixels, CHUNK)
    ]
    return torch.cat(parts)


def _corrupted(images: Tensor, name: str) -> Tensor:
    change = next(change for change in CHANGES if change.name == name)
    draws = torch.full((len(images), PARAMETERS), SEVERITY, device=images.device)
    return change.of_pixels(images, draws)


@torch.no_grad()
def validation_loss(logits: Tensor, labels: Ints) -> float:
    """Mean cross-entropy of [n, K] logits against [n] labels, in nats."""
    return float(F.cross_entropy(logits, torch.from_numpy(labels)))


def report(parts: dict[str, Tensor], data: Dataset, goals: Goals, linear: bool) -> dict[str, Any]:
    """Accuracy in percent, loss and calibration error, by domain; of seen and unseen classes where some were held out.

    Args:
        parts: logits by name of a domain of `goals.validation` or `goals.test`, on the CPU.
        data: labels.
        goals: rows.
        linear: whether the logits are of the seen classes only.
    """
    fitted = fit_temperature(*_for_fit(parts, data, goals, linear))
    result: dict[str, Any] = {"temperature": round(fitted, 4), "val": {}, "test": {}}
    for kind, domains in (("val", goals.validation), ("test", goals.test)):
        for name, rows in domains.items():
            result[kind][name] = _scored(parts[name], data.labels[rows], goals, linear, fitted)
    for kind in ("val", "test"):
        result[f"{kind}_mean"] = round(float(np.mean([s["acc"] for s in result[kind].values()])), 3)
    return result


def errors_by_temperature(
    parts: dict[str, Tensor], styled: dict[str, dict[str, Tensor]], data: Dataset, goals: Goals, linear: bool
) -> dict[str, dict[str, float]]:
    """Calibration error in percent by domain, with temperatures that are fitted in several ways.

    Args:
        parts: as in `report`.
        styled: logits of the validation images in other styles, by style and domain.
        data: labels.
        goals: rows.
        linear: as in `report`.
    """
    one = [replace(goals, validation={name: rows}) for name, rows in goals.validation.items()]
    changed = [_for_fit(part, data, goals, linear) for part in styled.values()]
    each_style = [fit_temperature(*values) for values in changed]
    temperatures = {
        "all": fit_temperature(*_for_fit(parts, data, goals, linear)),
        "hardest": max(fit_temperature(*_for_fit(parts, data, each, linear)) for each in (goals, *one)),
        "styles": fit_temperature(*(np.concatenate(values) for values in zip(*changed, strict=True))),
        "hardest style": max(each_style),
    }
    domains = goals.validation | goals.test
    return {
        way: {"temperature": round(t, 4)}
        | {
            name: _scored(parts[name], data.labels[rows], goals, linear, t)["ece_fitted"]
            for name, rows in domains.items()
        }
        for way, t in temperatures.items()
    }


def _for_fit(parts: dict[str, Tensor], data: Dataset, goals: Goals, linear: bool) -> tuple[Array, Ints]:
    """Logits and labels of the sources' validation images, of seen classes only."""
    logits = torch.cat([parts[name] for name in goals.validation]).numpy()
    labels = np.concatenate([data.labels[rows] for rows in goals.validation.values()])
    known = np.isin(labels, goals.seen)
    logits = logits if linear else logits[:, goals.seen]
    return logits[known], np.searchsorted(goals.seen, labels[known])


def _scored(logits: Tensor, labels: Ints, goals: Goals, linear: bool, temperature: float) -> dict[str, float]:
    if linear and len(goals.seen) < goals.full_head.shape[0]:
        full = torch.full((len(logits), goals.full_head.shape[0]), -1e4)
        full[:, torch.from_numpy(goals.seen)] = logits
        logits = full
    right = logits.argmax(-1).numpy() == labels
    wide = logits.double()
    scores = {
        "acc": 100 * float(right.mean()),
        "loss": float(F.cross_entropy(wide, torch.from_numpy(labels))),
        "ece": 100 * reliability(wide.softmax(-1).numpy(), labels).error,
        "ece_fitted": 100 * reliability((wide / temperature).softmax(-1).numpy(), labels).error,
    }
    known = np.isin(labels, goals.seen)
    if not known.all() and known.any():
        seen, unseen = 100 * float(right[known].mean()), 100 * float(right[~known].mean())
        scores |= {"seen": seen, "unseen": unseen, "harmonic": 2 * seen * unseen / max(seen + unseen, 1e-9)}
    return {name: round(value, 3) for name, value in scores.items()}


def with_unseen(goals: Goals, data: Dataset) -> Goals:
    """The validation rows of each source domain, and with them all its images of held-out classes."""
    held_out_rows = ~np.isin(data.labels, goals.seen)
    if not held_out_rows.any():
        return goals
    return replace(
        goals,
        validation={
            name: np.concatenate(
                [rows, np.flatnonzero(held_out_rows & (data.domains == data.domain_names.index(name)))]
            )
            for name, rows in goals.validation.items()
        },
    )
