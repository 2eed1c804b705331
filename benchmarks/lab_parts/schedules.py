"""The images and learning rate of each step of a job, and the weights of the running average."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lab_parts.goals import Goals
from lab_parts.slot import Schedule, adam_rates, mean_from, moving
from lab_parts.variant import Variant
from vl2v.data.batches import Streams
from vl2v.data.splits import Indices, seed_hash

SEGMENTS = 12  # validations of a run whose average is the loss valley
ALIGN_RATE = 1e-3


def rows_of(streams: Streams, steps: int) -> Indices:
    """[steps, B], what `Streams.draw` gives for each step, all at once."""
    columns = []
    for group, (rows, share) in enumerate(zip(streams.groups, streams.shares, strict=True)):
        passes = -(-steps * share // len(rows)) if share else 0
        orders = [np.random.default_rng([streams.seed, group, e]).permutation(len(rows)) for e in range(passes)]
        order = np.concatenate(orders) if orders else np.zeros(0, np.int64)
        columns.append(rows[order[: steps * share]].reshape(steps, share))
    return np.concatenate(columns, axis=1)


def align_schedule(v: Variant, goals: Goals, seed: int) -> Schedule:
    """Of Align: no image is varied or mixed."""
    rows = torch.from_numpy(rows_of(Streams(goals.groups, goals.shares, seed_hash(seed, "align")), v.align_steps))
    rates = adam_rates([ALIGN_RATE] * v.align_steps)
    return _unmixed(rows, rates, moving(v.align_steps, v.align_ema))


def distill_schedule(v: Variant, goals: Goals, seed: int) -> Schedule:
    """Of Distill; partners, shares and styles are filled in as images are varied."""
    rows = torch.from_numpy(rows_of(Streams(goals.groups, goals.shares, seed_hash(seed, "distill")), v.steps))
    rates = adam_rates([learning_rate(v, step) for step in range(v.steps)])
    return _unmixed(rows, rates, averaging(v))


def _unmixed(rows: Tensor, rates: Tensor, keep: Tensor) -> Schedule:
    partner = torch.arange(rows.shape[1]).expand(rows.shape).contiguous()
    return Schedule(rows, partner, torch.ones(rows.shape), torch.zeros_like(rows), rates, keep)


def learning_rate(v: Variant, step: int) -> float:
    """Of one step, counted from 0."""
    rate = v.lr * min(1.0, (step + 1) / (v.warmup + 1))
    if v.schedule == "constant" or step < v.warmup:
        return rate
    done = (step - v.warmup) / max(v.steps - v.warmup, 1)
    return rate * (0.5 * (1 + math.cos(math.pi * done)) if v.schedule == "cosine" else 1 - done)


def averaging(v: Variant) -> Tensor:
    """[steps], see `Schedule.keep`."""
    if v.average == "ema":
        return moving(v.steps, v.ema_decay)
    if v.average == "last":
        return moving(v.steps, 0)
    if v.average == "mean":
        return mean_from(v.steps, round(v.average_from * v.steps))
    ends = segment_ends(v)
    return torch.cat([mean_from(b - a, 0) for a, b in zip([0, *ends[:-1]], ends, strict=True)])


def segment_ends(v: Variant) -> list[int]:
    """After how many steps the loss valley's segments end."""
    return sorted({round(v.steps * (i + 1) / SEGMENTS) for i in range(SEGMENTS)} - {0})
