"""The plan of a grid: jobs, hours and cost, before anything is spent."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from decimal import Decimal
from statistics import fmean
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from vl2v.benchmark.protocol import Job
from vl2v.benchmark.purchase import survey, unknown
from vl2v.benchmark.results import job_file, job_seconds
from vl2v.benchmark.sweep import Sweep
from vl2v.formatting import exact
from vl2v.planning.models import open_student
from vl2v.planning.plan import plan_run
from vl2v.progress import Progress
from vl2v.training.duration import Rates, Workload, seconds_of
from vl2v.training.process import make_accelerator


@dataclass(frozen=True)
class Plan:
    """The requirements of a grid.

    Attributes:
        image_queries: image queries of all jobs; each image and view counts once.
        hours: duration of the remaining jobs in sequence on this machine.
        basis: basis of the estimate of `hours`.
    """

    jobs: int
    finished: int
    image_queries: int
    text_queries: int
    cost: Decimal
    currency: str
    hours: float
    basis: str

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON; amounts of money are exact strings."""
        values = asdict(self) | {"cost": exact(self.cost)}
        return values | {"hours_from": values.pop("basis")}

    def table(self) -> RenderableType:
        """Return a table for a terminal."""
        table = Table(title="plan of the benchmark; nothing is spent", show_header=False)
        table.add_column()
        table.add_column(justify="right")
        table.add_row("jobs", f"{self.jobs:,}")
        table.add_row("of them finished", f"{self.finished:,}")
        table.add_row("image queries to buy", f"{self.image_queries:,}")
        table.add_row("text queries to buy", f"{self.text_queries:,}")
        table.add_row(f"cost, {self.currency}", exact(self.cost))
        table.add_row("hours, one job at a time", f"{self.hours:.1f}")
        return Group(table, f"hours: from {self.basis}")


def make_plan(sweep: Sweep, progress: Progress) -> Plan:
    """Compute the requirements of an opened grid. Nothing is spent.

    The hours are estimated from finished jobs or, if there are none, from a few training steps.
    """
    every, remaining_jobs = sweep.expected(), sweep.unfinished()
    bought, _ = survey(sweep, progress)
    images, texts = unknown(sweep, bought)
    hours, basis = _hours(sweep, remaining_jobs, progress)
    price = bought.card.price
    cost = price.of(images=images, texts=texts)
    return Plan(len(every), len(every) - len(remaining_jobs), images, texts, cost, price.currency, hours, basis)


def _hours(sweep: Sweep, remaining_jobs: list[Job], progress: Progress) -> tuple[float, str]:
    if not remaining_jobs:
        return 0.0, "all jobs are finished"
    done = [job_seconds(job_file(sweep.out, job)) for job in sweep.finished()]
    if done:
        return fmean(done) * len(remaining_jobs) / 3600, f"the mean of {len(done)} finished jobs"
    counts: dict[str, Workload] = {}
    for job in remaining_jobs:
        if job.target not in counts:
            plan = plan_run(job.config, sweep.storage, progress, teacher=sweep.teacher, with_student=False)
            counts[job.target] = Workload.of(plan)
    config = remaining_jobs[0].config
    batch = counts[remaining_jobs[0].target].batch
    rates = Rates.measure(config, open_student(config), batch, make_accelerator(config), report=False)
    seconds = 0.0
    for job in remaining_jobs:
        weight_sets = 1 + len(job.config.measure.weights) + len(job.config.measure.wise_ft)
        seconds += seconds_of(job.config.distill, counts[job.target], rates, weight_sets)
    return seconds / 3600, "a few steps on this machine"
