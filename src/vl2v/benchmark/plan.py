"""What a grid would take: jobs, hours and money, before anything is spent."""

from __future__ import annotations

import time
from dataclasses import dataclass
from decimal import Decimal
from statistics import fmean

import numpy as np
import torch

from vl2v.benchmark.protocol import Job
from vl2v.benchmark.purchase import survey, unknown
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
    bought, _ = survey(sweep, progress)
    images, texts = unknown(sweep, bought)
    hours, basis = _hours(sweep, left, progress)
    price = bought.card.price
    cost = price.of(images=images, texts=texts)
    return Plan(len(every), len(every) - len(left), images, texts, cost, price.currency, hours, basis)


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


def _hours(sweep: Sweep, left: list[Job], progress: Progress) -> tuple[float, str]:
    if not left:
        return 0.0, "nothing is left to do"
    done = [read_json(job_file(sweep.out, job))["seconds"] for job in sweep.finished()]
    if done:
        return fmean(done) * len(left) / 3600, f"the mean of {len(done)} finished jobs"
    counts: dict[str, _Images] = {}
    for job in left:
        if job.target not in counts:
            with open_session(job.config, sweep.places, progress, teacher=sweep.teacher, with_student=False) as session:
                counts[job.target] = _Images.of(session)
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
