"""Load the data of jobs, and run a list of jobs in parallel until a deadline."""

from __future__ import annotations

import json
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from lab_parts.dataset import load
from lab_parts.scoring import CHUNK, resized
from lab_parts.slot import Engine, Network, Slot, shape_of
from lab_parts.training import Event, Running, SharedData, plan_of
from lab_parts.variant import Job, read_lines, settings_of

SIDE = 128  # pixels, of the student's images


class Bench:
    """Everything that stays loaded, and the slots that wait for jobs.

    Args:
        folder: as `prepare` wrote it.
        engine: how steps run.
        side: of the student's images, in pixels.
    """

    def __init__(self, folder: Path, engine: Engine, side: int = SIDE) -> None:
        self.folder, self.engine, self.side = folder, engine, side
        module = timm.create_model("tf_efficientnet_lite0", num_classes=0)
        module.load_state_dict({k: v.float() for k, v in load_file(folder / "lite0.safetensors").items()}, strict=True)
        module = module.eval().to(engine.device)
        if engine.channels_last:
            module = module.to(memory_format=torch.channels_last)
        self.network = Network(module, engine)
        self.shared_data_by_name: dict[str, SharedData] = {}
        self.free: dict[Any, list[Slot]] = {}

    def shared_data(self, name: str) -> SharedData:
        """A data set with its features, loaded once."""
        if name not in self.shared_data_by_name:
            started = time.perf_counter()
            data = load(self.folder / f"{name}.npz", self.engine.device)
            pixels = resized(data.pixels, self.side)
            features = self._features(name, pixels)
            self.shared_data_by_name[name] = SharedData(data, self.network, features, pixels, self.engine)
            if self.engine.device.type == "cuda":
                torch.cuda.synchronize()  # other streams are about to read these
            print(f"{name}: {len(pixels)} images ready in {time.perf_counter() - started:.1f} s", flush=True)
        return self.shared_data_by_name[name]

    @torch.no_grad()
    def _features(self, name: str, pixels: Tensor) -> Tensor:
        """Return the features of every image before training. On a CPU, they are cached in the temporary folder."""
        modified = int((self.folder / f"{name}.npz").stat().st_mtime)
        cache = Path(tempfile.gettempdir()) / f"vl2v-lab-{name}-{self.side}-{modified}.npy"
        if self.engine.device.type == "cpu" and cache.exists():
            return torch.from_numpy(np.load(cache))
        parameters = self.network.views(self.network.start)
        rows_of_chunks = torch.from_numpy(np.resize(np.arange(len(pixels)), -(-len(pixels) // CHUNK) * CHUNK))
        parts = [
            self.network.eager(parameters, pixels[part])
            for part in torch.split(rows_of_chunks.to(self.engine.device), CHUNK)
        ]
        features = torch.cat(parts)[: len(pixels)]
        if self.engine.device.type == "cpu":
            np.save(cache, features.numpy())
        return features

    def start(self, job: Job) -> tuple[Running, Iterator[Event], Any]:
        """Return a job that is ready to run in a free or new slot, and the key of its slot."""
        shared_data = self.shared_data(job.dataset)
        goals = plan_of(job, shared_data.data)
        k, d = goals.head.shape
        v = job.variant
        key = (job.dataset, job.teacher, shape_of(v), v.batch, v.train_side, v.freeze, k, d)
        waiting = self.free.setdefault(key, [])
        slot = waiting.pop() if waiting else shared_data.slot(job, goals)
        running = Running(job, slot, goals, shared_data)
        return running, running.run(), key


@dataclass
class Runner:
    """Runs jobs in order and appends a line for each to a file as it ends.

    Attributes:
        bench: where.
        out: JSON lines; a job that has one already is passed over.
        at_once: how many jobs share the device.
        deadline: seconds from now at which everything stops; jobs that would not end by then are not begun.
        margin: seconds that the last scores may take.
    """

    bench: Bench
    out: Path
    at_once: int = 1
    deadline: float = float("inf")
    margin: float = 5.0
    _queue: list[Job] = field(default_factory=list)
    _active: list[tuple[Running, Iterator[Event], Event, Any]] = field(default_factory=list)
    _steps: int = 0
    _started: float = 0.0
    _looked: float = -1.0

    def run(self, jobs: Sequence[Job]) -> None:
        """Run all of them, most important first."""
        done = {line["key"] for line in read_lines([self.out])} if self.out.exists() else set()
        self._queue = [job for job in dict.fromkeys(jobs) if job.key not in done]
        total, self._started, reported = len(self._queue), time.perf_counter(), 0.0
        print(f"{total} jobs to do, {len(jobs) - total} done before", flush=True)
        with self.out.open("a") as file:
            while self._queue or self._active:
                now = time.perf_counter() - self._started
                if now > self.deadline:
                    print(f"deadline: {len(self._active)} under way are dropped", flush=True)
                    return
                self._fill(now)
                if not self._advance(file):
                    time.sleep(2e-4)
                if now - reported > 15:
                    reported = now
                    ended = total - len(self._queue) - len(self._active)
                    print(f"{now:.0f} s: {ended}/{total} done, {self._rate(now):.0f} steps/s", flush=True)

    def _rate(self, now: float) -> float:
        return (self._steps + sum(r.steps for r, *_ in self._active)) / max(now, 1e-9)

    def _fill(self, now: float) -> None:
        """Begin jobs while there is room, the first in the queue that would end in time."""
        while self._queue and len(self._active) < self.at_once and now - self._looked > 0.2:
            rate = self._rate(now) if now > 20 else float("inf")
            left = sum(_length(r.job) - r.steps for r, *_ in self._active)
            fits = (i for i, job in enumerate(self._queue) if self._fits(job, left, rate, now))
            place = next(fits, None)
            if place is None:
                self._looked = now
                if now > 60 or not self._active:
                    print(f"{now:.0f} s: {len(self._queue)} jobs would not end in time", flush=True)
                    self._queue.clear()
                return
            try:
                running, work, key = self.bench.start(self._queue.pop(place))
                self._active.append((running, work, None, key))
            except Exception:  # one job's fault must not end the others
                traceback.print_exc()

    def _fits(self, job: Job, left: int, rate: float, now: float) -> bool:
        """Whether a job would end in time: its share of the rate is one of `at_once`."""
        seconds = max(_length(job) * self.at_once, left + _length(job)) / rate
        return now + seconds <= self.deadline - self.margin

    def _advance(self, file: TextIO) -> bool:
        """Let every job go on whose event has come; whether there was one."""
        moved = False
        for entry in list(self._active):
            running, work, event, key = entry
            if event is not None and not event.query():  # type: ignore[no-untyped-call]
                continue
            moved, place = True, self._active.index(entry)
            try:
                self._active[place] = (running, work, next(work), key)
            except StopIteration:
                del self._active[place]
                self._steps += running.steps
                _write(file, running)
                self.bench.free[key].append(running.slot)
            except Exception:  # one job's fault must not end the others
                traceback.print_exc()
                del self._active[place]
        return moved


def _length(job: Job) -> int:
    return job.variant.steps * job.variant.soup


def _write(file: TextIO, running: Running) -> None:
    job = running.job
    line: dict[str, Any] = {"key": job.key, "variant": job.variant.name, "dataset": job.dataset, "with": job.teacher}
    line |= {"removed": list(job.removed), "seed": job.seed, "settings": settings_of(job.variant)} | running.result
    file.write(json.dumps(line) + "\n")
    file.flush()
