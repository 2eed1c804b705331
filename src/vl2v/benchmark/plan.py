"""What a grid would take: jobs, hours and money, before anything is spent."""

from __future__ import annotations

import time
from dataclasses import dataclass
from decimal import Decimal
from statistics import fmean

import numpy as np
import torch

from vl2v.benchmark.protocol import Job
from vl2v.benchmark.results import is_finished, job_file
from vl2v.benchmark.sweep import Sweep
from vl2v.config import RunConfig
from vl2v.job.features import CHUNK, pass_through
from vl2v.job.process import make_accelerator
from vl2v.job.session import Session, open_session, open_student
from vl2v.method.distill import Projected
from vl2v.progress import Progress
from vl2v.student.files import read_json


@dataclass(frozen=True)
class Plan:
    """A grid's needs.

    Attributes:
        jobs: how many runs the grid has.
        finished: how many of them are done.
        image_queries: images to buy, over all jobs, each content and view once.
        text_queries: prompts to buy.
        cost: what these cost.
        currency: of `cost`.
        hours: for the jobs that are left, one at a time on a machine like this one.
        basis: what `hours` rests on.
    """

    jobs: int
    finished: int
    image_queries: int
    text_queries: int
    cost: Decimal
    currency: str
    hours: float
    basis: str


def make_plan(sweep: Sweep, progress: Progress) -> Plan:
    """Work out a grid's needs. Spends nothing; `sweep` is open.

    The hours are those of finished jobs where there are some, and are estimated from a few steps otherwise.
    """
    every = sweep.expected()
    left = [job for job in every if not is_finished(sweep.out, job)]
    images: dict[int, set[bytes]] = {}
    texts: set[str] = set()
    counts: dict[str, _Images] = {}
    bought = (0, 0)
    alike: set[str] = set()
    with progress.stage("planning", len(every)) as advance:
        for job in every:
            advance(1)
            if (likeness := _what_is_asked(job)) in alike:
                continue
            alike.add(likeness)
            with open_session(job.config, sweep.places, progress, teacher=sweep.teacher, with_student=False) as session:
                for (_, view), digests in session.needs.purposes.items():
                    images.setdefault(view, set()).update(row.tobytes() for row in digests)
                texts.update(session.needs.prompts)
                counts.setdefault(job.target, _Images.of(session))
                bought = _lacking(session, images, texts)
                price = session.card.price
    hours, basis = _hours(sweep, left, counts)
    cost = price.of(images=bought[0], texts=bought[1])
    return Plan(len(every), len(every) - len(left), *bought, cost, price.currency, hours, basis)


def _what_is_asked(job: Job) -> str:
    """The settings on which queries depend; jobs that agree in them ask for the same."""
    parts = {"data": True, "teacher": True, "seed": True, "method": True}
    return job.config.model_dump_json(include=parts)


def _lacking(session: Session, images: dict[int, set[bytes]], texts: set[str]) -> tuple[int, int]:
    """How many of the images and texts are not in the store yet."""
    unknown = 0
    for view, contents in images.items():
        rows = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, 32)
        unknown += int((~np.asarray(session.store.knows_images(session.card, rows, view))).sum())
    return unknown, session.store.knows_texts(session.card, list(texts)).count(False)


@dataclass(frozen=True)
class _Images:
    """How many images a job of one target trains on, has in a batch, validates on, and tests on."""

    train: int
    batch: int
    validation: int
    test: int

    @classmethod
    def of(cls, session: Session) -> _Images:
        sizes = [sum(map(len, part.values())) for part in (session.split.validation, session.split.test)]
        batch = session.config.batch_per_domain * len(session.split.sources)
        return cls(len(session.rows.digests), batch, *sizes)


def _hours(sweep: Sweep, left: list[Job], counts: dict[str, _Images]) -> tuple[float, str]:
    if not left:
        return 0.0, "nothing is left to do"
    done = [read_json(job_file(sweep.out, job))["seconds"] for job in sweep.finished()]
    if done:
        return fmean(done) * len(left) / 3600, f"the mean of {len(done)} finished jobs"
    training, passing = _rates(left[0].config)
    seconds = sum(_seconds(job, counts[job.target], training, passing) for job in left)
    return seconds / 3600, "a few steps on this machine"


def _seconds(job: Job, images: _Images, training: float, passing: float) -> float:
    """A job's wall time from the seconds per trained and per passed image; Align's steps on features are left out."""
    settings = job.config.distill
    validations = settings.steps // settings.checkpoint_every + 2
    measured = 1 + len(job.config.measure.weights) + len(job.config.measure.wise_ft)
    passed = validations * images.validation + measured * (images.validation + images.test) + images.train
    return settings.steps * images.batch * training + passed * passing


def _rates(config: RunConfig, steps: int = 3) -> tuple[float, float]:
    """Seconds that the student takes on this machine per image trained on, and per image passed through."""
    backbone, accelerator = open_student(config), make_accelerator(config)
    size, batch = backbone.preprocess.size, config.batch_per_domain
    module = backbone.module.to(accelerator.device).to(memory_format=torch.channels_last)
    pixels = np.random.default_rng(0).integers(0, 256, (CHUNK, size, size, 3), np.uint8)
    started = time.perf_counter()
    for _ in pass_through(module, backbone.preprocess, pixels, np.arange(CHUNK), accelerator.device):
        pass
    passing = (time.perf_counter() - started) / CHUNK
    model = Projected(module, torch.nn.Linear(backbone.features, 1).to(accelerator.device)).train()
    inputs = torch.randn(batch, 3, size, size, device=accelerator.device)
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        model(inputs).sum().backward()
        times.append(time.perf_counter() - started)
    return min(times) / batch, passing
