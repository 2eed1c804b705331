"""One job from start to result, as a generator that gives way whenever the device has work of it ahead."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lab_parts.batch_augment import apply_mix, apply_plan, draw_mix, draw_plan
from lab_parts.closed_form import projection_of, refitted_classifier, refitted_projection, selected
from lab_parts.dataset import Dataset, Ints
from lab_parts.goals import SCALE_RATE, Goals, make_goals, style_of
from lab_parts.schedules import ALIGN_RATE, align_schedule, distill_schedule, segment_ends
from lab_parts.scoring import (
    CORRUPTIONS,
    STYLES,
    errors_by_temperature,
    features_of,
    logits_of,
    report,
    validation_loss,
    with_unseen,
)
from lab_parts.slot import Engine, Network, Schedule, Slot, moved
from lab_parts.variant import Job, Variant
from vl2v.data.augment_settings import AugmentSettings
from vl2v.data.splits import seed_hash
from vl2v.method.swad import LossValley

Event = torch.cuda.Event | None
AHEAD = 2  # chunks of a job that wait on the device


@dataclass
class SharedData:
    """Data that the jobs on one dataset share.

    Attributes:
        data: images and teachers.
        network: the pretrained student.
        features: [N, F] of every image, of the pretrained network.
        pixels: [N, 3, S, S] uint8, at the image size of the student.
        engine: executes the steps.
        aligned: projections trained by Align, by the settings that they depend on.
        align_slots: free slots, by shape.
    """

    data: Dataset
    network: Network
    features: Tensor
    pixels: Tensor
    engine: Engine
    aligned: dict[Any, Tensor] = field(default_factory=dict)
    align_slots: dict[Any, list[Slot]] = field(default_factory=dict)

    def slot(self, job: Job, goals: Goals) -> Slot:
        """Return a new slot for jobs of this shape."""
        size = job.variant.train_side or self.pixels.shape[-1]
        return Slot(self.network, self.features, goals, job.variant, self.engine, size)


@dataclass
class Running:
    """A running job.

    Attributes:
        job: which.
        slot: where.
        goals: towards what.
        shared_data: data of the job.
        steps: taken, over all members of a soup.
    """

    job: Job
    slot: Slot
    goals: Goals
    shared_data: SharedData
    steps: int = 0
    result: dict[str, Any] = field(default_factory=dict)

    def run(self) -> Iterator[Event]:
        """Train and score; `result` is filled in at the end. Yields events to wait for; None needs no waiting."""
        started, v, slot = time.perf_counter(), self.job.variant, self.slot
        layer = yield from self._align()
        mean: Tensor | None = None
        for member in range(v.first_member, v.first_member + v.soup):
            accuracies = yield from self._distill(layer, self.job.seed + 1000 * member)
            with slot.on_stream():
                mean = accuracies if mean is None else mean + (accuracies - mean) / (member - v.first_member + 1)
        assert mean is not None
        seconds = time.perf_counter() - started
        scored = yield from self._scored(mean)
        loss, gain = float(slot.losses[: min(v.steps, 8)].mean()), float(mean[-1].exp())
        self.result = {"train_loss": round(loss, 4), "gain": round(gain, 4), "train_s": round(seconds, 1)} | scored
        self.result["teacher"] = {name: round(100 * acc, 2) for name, acc in self.goals.teacher_accuracy.items()}
        self.result["s"] = round(time.perf_counter() - started, 1)

    def _align(self) -> Generator[Event, None, Tensor]:
        """The layer after the backbone, [outputs * F + outputs + 1], from frozen features."""
        job, m, v = self.job, self.shared_data, self.job.variant
        key = (job.dataset, job.teacher, job.removed, job.seed, v.align_key)
        if key in m.aligned:
            return m.aligned[key]
        outputs, inputs = self.slot.layer
        if v.align == "ridge" and not v.linear:
            rows = np.concatenate(self.goals.groups)
            m.aligned[key] = projection_of(m.features[torch.from_numpy(rows)], self.goals, v)
            return m.aligned[key]
        torch.manual_seed(job.seed)
        fresh = nn.Linear(inputs, outputs)
        layer = torch.cat([fresh.weight.detach().flatten(), fresh.bias.detach(), torch.zeros(1)])
        shape = (job.dataset, job.teacher, self.slot.shape, self.slot.layer, v.batch, len(self.goals.head))
        waiting = m.align_slots.setdefault(shape, [])
        engine = replace(m.engine, chunk=100)
        slot = waiting.pop() if waiting else Slot(None, m.features, self.goals, v, engine, 0)
        schedule = align_schedule(v, self.goals, job.seed)
        with slot.on_stream():
            slot.begin(self.goals, v, layer.to(engine.device), (1.0, SCALE_RATE / ALIGN_RATE if v.learn_scale else 0))
        for begin in range(0, v.align_steps, engine.chunk):
            end = min(begin + engine.chunk, v.align_steps)
            with slot.on_stream():
                slot.load(schedule, begin, end)
                slot.run(end - begin)
                event = _event(engine)
            yield event
        with slot.on_stream():
            aligned = slot.average.clone()
            event = _event(engine)
        yield event
        m.aligned[key] = aligned  # only now, as other streams may read it
        waiting.append(slot)
        return m.aligned[key]

    def _distill(self, layer: Tensor, seed: int) -> Generator[Event, None, Tensor]:
        """Train once; the averaged weights, flat."""
        v, slot, m = self.job.variant, self.slot, self.shared_data
        generator = torch.Generator().manual_seed(seed_hash(seed, "augment"))
        trains = 1.0 if v.linear or v.train_projection else 0.0
        waiting: deque[Event] = deque()
        valley, ends = (LossValley(), segment_ends(v)) if v.average == "swad" else (None, [v.steps])
        schedule = distill_schedule(v, self.goals, seed)
        change = round(v.later_from * v.steps) if v.later_side else v.steps
        stops = sorted({*ends, change} - {0})
        with slot.on_stream():
            slot.resize(v.train_side or m.pixels.shape[-1])
            slot.begin(self.goals, v, layer, (trains, SCALE_RATE / v.lr if v.learn_scale else 0.0))
        begin = 0
        while begin < v.steps:
            stop = next(end for end in stops if end > begin)
            end = min(begin + m.engine.chunk, stop)
            with slot.on_stream():
                if begin == change:
                    slot.resize(v.later_side)
                _vary(slot, m, v, schedule, begin, end, generator)
                slot.load(schedule, begin, end)
                slot.run(end - begin)
                waiting.append(_event(m.engine))
            self.steps += end - begin
            if len(waiting) >= AHEAD:
                yield waiting.popleft()
            if valley is not None and end in ends:
                died = yield from self._validated(valley, end - 1)
                if died:
                    break
            begin = end
        if valley is not None:
            return valley.average()["flat"].to(m.engine.device)
        with slot.on_stream():
            return slot.average.clone()

    def _validated(self, valley: LossValley, step: int) -> Generator[Event, None, bool]:
        """End a segment of the loss valley; whether it was the last."""
        data, goals = self.shared_data.data, self.goals
        with self.slot.on_stream():
            parts = logits_of(self.slot, self.slot.flat, goals, self.shared_data.pixels, goals.validation)
            event = _event(self.shared_data.engine)
        yield event
        seen = slice(None) if self.job.variant.linear else torch.from_numpy(goals.seen)
        losses = [
            validation_loss(parts[name].cpu()[:, seen], np.searchsorted(goals.seen, data.labels[rows]))
            for name, rows in goals.validation.items()
        ]
        valley.update(step, {"flat": self.slot.average})
        valley.end_segment(step, float(np.mean(losses)))
        return valley.dead_at is not None

    def _scored(self, mean: Tensor) -> Generator[Event, None, dict[str, Any]]:
        """Return the scores of the averaged weights, and of additional weights that the job requests."""
        v, m, slot = self.job.variant, self.shared_data, self.slot
        goals = with_unseen(self.goals, m.data)
        rows = goals.validation | goals.test

        def passed(flat: Tensor, wanted: dict[str, Ints], corruption: str = "") -> dict[str, Tensor]:
            return logits_of(slot, flat, goals, m.pixels, wanted, corruption)

        with slot.on_stream():
            accuracies = passed(mean, rows)
            mixed = {share: passed(slot.start.lerp(mean, share), rows) for share in v.wise_ft}
            broken = {name: passed(mean, goals.test, name) for name in CORRUPTIONS if v.corrupted_test}
            styled = {name: passed(mean, goals.validation, name) for name in STYLES if v.temperatures}
            sides = {s: logits_of(slot, mean, goals, m.data.pixels, rows, side=s) for s in v.test_sides}
            refitted = {
                s: logits_of(slot, self._refitted(mean, s), goals, m.data.pixels if s else m.pixels, rows, side=s)
                for s in v.test_sides or (0,)
                if v.refit
            }
            event = _event(m.engine)
        yield event
        result = report(_host(accuracies), m.data, goals, v.linear)
        if mixed:
            parts = {share: report(_host(part), m.data, goals, v.linear) for share, part in mixed.items()}
            result["wise_ft"] = {str(s): {k: r[k] for k in ("val_mean", "test_mean", "test")} for s, r in parts.items()}
        if styled:
            styles = {name: _host(part) for name, part in styled.items()}
            result["temperatures"] = errors_by_temperature(_host(accuracies), styles, m.data, goals, v.linear)
        if sides:
            result["sides"] = {str(s): report(_host(part), m.data, goals, v.linear) for s, part in sides.items()}
        if refitted:
            reports = {str(s or "own"): report(_host(part), m.data, goals, v.linear) for s, part in refitted.items()}
            result["refit"] = reports
        if broken:
            labels = {name: m.data.labels[r] for name, r in goals.test.items()}
            result["corrupted"] = {
                name: {d: round(100 * float((x.argmax(-1).numpy() == labels[d]).mean()), 2) for d, x in part.items()}
                for name, part in ((n, _host(p)) for n, p in broken.items())
            }
        return result

    def _refitted(self, flat: Tensor, side: int) -> Tensor:
        """Fit the last layer again to the features of trained weights, and return all weights."""
        slot, goals, m, v = self.slot, selected(self.goals, self.job.seed), self.shared_data, self.job.variant
        pixels, rows = m.data.pixels if side else m.pixels, np.concatenate(goals.groups)
        features = features_of(slot, flat, pixels, rows, side=side)
        if v.linear:
            layer = refitted_classifier(features, goals, v)
        else:
            *_, weight, bias, _ = (leaf.detach() for leaf in slot.leaves_of(flat))
            layer = refitted_projection(features, weight, bias, goals, v)
        layer[-1] = flat[-1]
        return torch.cat([flat[: len(flat) - len(layer)], layer])


def _host(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: part.float().cpu() for name, part in parts.items()}


def _event(engine: Engine) -> Event:
    if engine.device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event


def _vary(
    slot: Slot, m: SharedData, v: Variant, schedule: Schedule, begin: int, end: int, generator: torch.Generator
) -> None:
    """Vary and mix the images of some steps into the slot, and note styles, partners and shares in the schedule."""
    count, batch = end - begin, v.batch
    settings = AugmentSettings(scale=v.scale, jitter=v.jitter, style=v.style, corrupt=v.corrupt)
    plan = draw_plan(count * batch, settings, generator)
    rows = schedule.rows[begin:end].flatten()
    images = apply_plan(m.data.pixels[moved(rows, m.data.pixels.device)], plan, slot.pixels.shape[-1])
    if v.steer:
        schedule.style[begin:end] = style_of(plan.change).view(count, batch)
    if v.mixup or v.cutmix:
        mix = draw_mix(count, batch, v.mixup, v.cutmix, generator)
        images = apply_mix(images, mix)
        schedule.partner[begin:end] = mix.partner.view(count, batch) - torch.arange(count)[:, None] * batch
        schedule.share[begin:end] = mix.share.view(count, batch)
    slot.pixels[:count] = images.view(count, batch, *images.shape[1:])


def plan_of(job: Job, data: Dataset) -> Goals:
    """The job's goals, validated for what the bench supports."""
    if job.variant.batch % (len(data.domain_names) - len(job.removed)):
        raise ValueError(f"expected a batch that {len(data.domain_names) - len(job.removed)} domains share evenly")
    return make_goals(job, data)
