"""Estimated duration of a run on this machine, and the number of steps that fit into a time limit."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray

from vl2v.config import RunConfig
from vl2v.data.augment import Augmentation
from vl2v.errors import DataError
from vl2v.evaluation.features import CHUNK, pass_through
from vl2v.evaluation.final_size import RATIOS, larger_sizes
from vl2v.evaluation.styles import MOST_IMAGES, STYLES
from vl2v.method.registry import METHODS
from vl2v.micro_batch import MicroBatch
from vl2v.planning.plan import RunPlan
from vl2v.planning.resolved_settings import RESOLVED
from vl2v.progress import Progress
from vl2v.recipes import validation_interval
from vl2v.runs.folder import RunFolder
from vl2v.schema import DistillConfig
from vl2v.student.backbones import Backbone
from vl2v.threads import cores, using_threads
from vl2v.training.data import loading_processes
from vl2v.training.process import make_accelerator, tuned
from vl2v.training.refit import decoded, example_count
from vl2v.training.thread_count import fastest, training_threads, trial_steps
from vl2v.training_time import TrainingTime

TRIES = 3  # measurements of a training step, of which the fastest counts
DECODED = 8  # images whose decoding is timed
FEWEST = 20  # minimum number of steps, however short the time limit is
ALIGN_STEP = 6e-3  # seconds of a step of the first stage on cached features, on a CPU
REPORT = 8.0  # seconds of the report and of its features, on two slow cores
AUTO_MINUTES = 5.0  # minimum training time of `auto`
AUTO_EPOCHS, AUTO_LONGEST = 10, 60.0  # `auto` does not limit the steps to fewer epochs, unless these take more minutes


@dataclass(frozen=True)
class Workload:
    """Numbers of images of a run.

    Attributes:
        batch: images per batch.
        enlarged: whether larger images are tried at the end, see `vl2v.evaluation.final_size`.
        refitted: training images to whose features the projection is fitted again, see `vl2v.training.refit`.
    """

    train: int
    batch: int
    validation: int
    test: int
    enlarged: bool = False
    refitted: int = 0

    def evaluated(self) -> float:
        """Return what the evaluation of one set of weights costs, in images of the size of training.

        If larger images are tried, the middle size counts for the rest of the evaluation.
        """
        once = self.validation + self.test + len(STYLES) * min(self.validation, MOST_IMAGES)
        once += self.refitted + (2 * self.validation if self.refitted else 0)
        if not self.enlarged:
            return once
        areas = [ratio**2 for ratio in RATIOS]
        return self.validation * sum(areas) + once * areas[0]

    def decoded_again(self) -> int:
        """Return the number of images that are decoded again in a larger size."""
        return self.validation * len(RATIOS) + self.test + self.refitted if self.enlarged else 0

    @classmethod
    def of(cls, plan: RunPlan) -> Workload:
        """Return the workload of a planned run."""
        validation, *test = (sum(map(len, part.values())) for part in plan.split.evaluation_parts)
        enlarged = plan.config.student.final_size == "auto" and bool(larger_sizes(plan.student_backbone))
        images = len(plan.examples.digests)
        refitted = example_count(plan.config.distill, images)
        return cls(images, sum(plan.shares), validation, sum(test), enlarged, refitted)


@dataclass(frozen=True)
class Rates:
    """Seconds that a student takes on this machine.

    Attributes:
        training: per image, forward and backward pass, including augmentation.
        passing: per image, forward pass only.
        fixed: of a run with any number of images, for the first stage on cached features and the report.
        decoding: per image, to read and decode its file.
    """

    training: float
    passing: float
    fixed: float = 0.0
    decoding: float = 0.0

    @classmethod
    def measure(
        cls,
        config: RunConfig,
        backbone: Backbone,
        batch: int,
        accelerator: Accelerator,
        tries: int = TRIES,
        *,
        report: bool = True,
    ) -> Rates:
        """Measure the rates with a few steps on noise. The student is not changed.

        Args:
            batch: images per step.
            tries: number of measurements, of which the fastest counts.
            report: whether the run ends with its report.
        """
        device, size, trains = accelerator.device, backbone.preprocess.size, METHODS[config.method].trains_backbone
        pixels = np.random.default_rng(0).integers(0, 256, (CHUNK, size, size, 3), np.uint8)
        micro = MicroBatch(config.micro_batch, processes=accelerator.num_processes, compiled=config.compile)

        def infer() -> None:
            for _ in pass_through(backbone.module, backbone.preprocess, pixels, np.arange(CHUNK), device):
                pass

        with trial_steps(config, backbone, accelerator, micro) as step:
            if trains:
                training = micro.attempt(batch, lambda: fastest(partial(step, batch), device, tries)) / batch
            passing = fastest(infer, device, tries) / CHUNK
        fixed = ALIGN_STEP * config.first_stage_steps + (REPORT if report else 0)
        if not trains:
            return cls(0.0, passing, fixed)
        # With a GPU, other processes augment at the same time. A CPU augments between the steps.
        augmenting = _augmenting(config, pixels) if not loading_processes(config.workers, device) else 0.0
        return cls(training + augmenting, passing, fixed)


def seconds_of(settings: DistillConfig, work: Workload, rates: Rates, weight_sets: int = 1) -> float:
    """Return the estimated duration of a run after the purchase, in seconds."""
    steps = settings.steps
    validations = steps // settings.checkpoint_every + 2
    passed = validations * work.validation + weight_sets * work.evaluated() + work.train
    decoding = work.decoded_again() * rates.decoding
    return steps * work.batch * rates.training + passed * rates.passing + decoding + rates.fixed


def within(settings: DistillConfig, seconds: float, work: Workload, rates: Rates) -> DistillConfig:
    """Reduce the number of steps to a time limit, and the steps between validations in proportion.

    Args:
        seconds: time limit for the whole run after the purchase.
        rates: rates of the student on this machine.

    Returns:
        Settings without a time limit. They have at least `FEWEST` steps, even if these take longer.
    """

    settings = settings.model_copy(update={"minutes": 0.0})
    if seconds_of(settings, work, rates) <= seconds:
        return settings
    allowed = range(min(FEWEST, settings.steps), settings.steps + 1)
    fitting = bisect_right(allowed, seconds, key=lambda steps: seconds_of(with_steps(settings, steps), work, rates))
    return with_steps(settings, allowed[max(fitting - 1, 0)])


def with_steps(settings: DistillConfig, most: int) -> DistillConfig:
    """Reduce the number of steps to at most `most`, and the steps between validations in proportion."""
    steps = min(most, settings.steps)
    every = validation_interval(steps, settings.checkpoint_every)
    return settings.model_copy(update={"steps": steps, "checkpoint_every": every})


def longest(settings: DistillConfig, work: Workload, rates: Rates) -> float:
    """Return the training time in seconds to which the steps are limited; infinity without a limit."""
    if settings.minutes != "auto":
        return 60.0 * settings.minutes or math.inf
    epochs = settings.model_copy(update={"steps": math.ceil(AUTO_EPOCHS * work.train / work.batch)})
    return min(60 * AUTO_LONGEST, max(60 * AUTO_MINUTES, seconds_of(epochs, work, rates)))


def resolve_time_limit(plan: RunPlan, folder: RunFolder, accelerator: Accelerator, progress: Progress) -> RunPlan:
    """Choose the number of threads and, if time is limited, of steps, by measurements before the first step.

    Both are written to `config.yaml`, together with settings that depend on the data. A run with a saved state uses the
    numbers in its settings. A run of an earlier version has none, and uses as many threads as torch.
    """
    file_config, config = folder.config(), plan.config
    if folder.state_file.exists():
        config = config.model_copy(update={"threads": file_config.threads})
    else:
        threads = training_threads(config, plan.student_backbone, sum(plan.shares), accelerator)
        config = config.model_copy(update={"threads": threads})
        if config.distill.minutes:
            with using_threads(threads):
                distill, estimate = training_time(plan, accelerator)
            progress.note(str(estimate))
            config = config.model_copy(update={"distill": distill})
    final = file_config.model_copy(update={key: getattr(config, key) for key in ("threads", *RESOLVED)})
    if accelerator.is_main_process and final != file_config:
        folder.write_config(final)
    return replace(plan, config=config)


def training_time(plan: RunPlan, accelerator: Accelerator) -> tuple[DistillConfig, TrainingTime]:
    """Return the settings of Distill within the time limit, and their duration; equal in all processes."""
    work, requested = Workload.of(plan), plan.config.distill
    share = max(1, work.batch // accelerator.num_processes)
    rates = Rates.measure(plan.config, plan.student_backbone, share, accelerator)
    rates = replace(rates, decoding=_decoding(plan) if work.enlarged else 0.0)
    if accelerator.num_processes > 1:
        rates = replace(rates, training=rates.training / accelerator.num_processes)
        rates = broadcast_object_list([rates])[0]
    limit = longest(requested, work, rates)
    settings = within(requested, limit, work, rates)
    seconds = seconds_of(settings, work, rates)
    size, unlimited = plan.student_backbone.preprocess.size, seconds_of(requested, work, rates)
    time = TrainingTime(settings.steps, work.batch, size, seconds, requested.steps, unlimited, limit)
    return settings, time


def quoted_time(plan: RunPlan) -> TrainingTime:
    """Return the training time for a quote, with the number of threads that the run would use."""
    accelerator = make_accelerator(plan.config)
    threads = training_threads(plan.config, plan.student_backbone, sum(plan.shares), accelerator)
    with using_threads(threads), tuned(accelerator.device):
        return training_time(plan, accelerator)[1]


def _decoding(plan: RunPlan) -> float:
    """Return the seconds per image that reading and decoding a file takes, with all threads."""
    rows = np.linspace(0, len(plan.examples.digests) - 1, DECODED).astype(int).tolist()
    started = time.perf_counter()
    try:
        for row in rows:
            decoded(plan, row)
    except DataError:  # the file has changed, which the run reports
        return 0.0
    return (time.perf_counter() - started) / len(rows) / cores()


def _augmenting(config: RunConfig, pixels: NDArray[np.uint8]) -> float:
    """Return the seconds per image that augmentation takes."""
    augmentation = Augmentation(pixels.shape[1], config.distill.augment)
    started = time.perf_counter()
    for seed, image in enumerate(pixels):
        augmentation(image, seed)
    return (time.perf_counter() - started) / len(pixels)
