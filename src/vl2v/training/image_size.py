"""The image size of a student on a CPU: the largest with which enough training steps end in time."""

from __future__ import annotations

from dataclasses import replace

from accelerate import Accelerator

from vl2v.config import RunConfig
from vl2v.data.listing import Listing
from vl2v.formatting import duration
from vl2v.method.registry import METHODS
from vl2v.planning.models import open_student
from vl2v.planning.resolved_settings import resolved
from vl2v.planning.split import match_domains
from vl2v.progress import Progress
from vl2v.schema import DistillConfig
from vl2v.student.backbones import Backbone
from vl2v.threads import using_threads
from vl2v.training.duration import Rates, Workload, longest, seconds_of, with_steps
from vl2v.training.refit import example_count

TRIES = 2  # of a step, the fastest counts
ENOUGH_STEPS = 300  # then larger images are worth at least as much as further steps, see docs/results/recipe.md
SIZES = (128, 160, 192, 224, 256, 288, 320, 384)  # pixels; of these, only sizes below that of the weights are chosen


def with_image_size(
    config: RunConfig, listing: Listing, accelerator: Accelerator, progress: Progress
) -> tuple[RunConfig, Backbone | None]:
    """Choose the student's input size if it is open and time is limited; return settings, and the backbone if loaded.

    The student is timed with its smallest size. The cost of an image is taken to be proportional to its area. The
    chosen size is the largest of `SIZES` with which `ENOUGH_STEPS`, or all steps if they are fewer, end in time, and
    the smallest if none does. On a GPU, and for a backbone that only accepts one size, the size of the pretrained
    weights remains.

    If the time limit is ``auto``, it is that of the smallest size, in minutes in the returned settings.

    Args:
        progress: receives a note if the size differs from that of the pretrained weights.

    Raises:
        StudentError: if the student cannot be loaded.
    """
    fixed = config.student.size is not None or config.student.spec == "teacher" or config.repair is not None
    unlimited = not config.distill.minutes
    if unlimited or fixed or accelerator.device.type != "cpu" or not METHODS[config.method].trains_backbone:
        return config, None
    backbone = open_student(config)
    native = backbone.preprocess.size
    sizes = [size for size in SIZES if size < native]
    if not sizes or not backbone.accepts(sizes[0]):
        return config, backbone
    timed_config, work = _workload(config, listing)
    with using_threads(config.threads):
        rates = Rates.measure(timed_config, _resized(backbone, sizes[0]), work.batch, accelerator, TRIES)

    def training_seconds(size: int, distill: DistillConfig) -> float:
        area = (size / sizes[0]) ** 2
        scaled = replace(rates, training=rates.training * area, passing=rates.passing * area)
        return seconds_of(distill, work, scaled)

    limit, enough = longest(timed_config.distill, work, rates), with_steps(timed_config.distill, ENOUGH_STEPS)
    config = config.model_copy(update={"distill": config.distill.model_copy(update={"minutes": limit / 60})})
    size = max((size for size in (*sizes, native) if training_seconds(size, enough) <= limit), default=sizes[0])
    if size == native:
        return config, backbone
    progress.note(
        f"images of {size} pixels; with {native} pixels, {enough.steps:,} steps would take about "
        f"{duration(training_seconds(native, enough), rounded=True)} (--size {native})"
    )
    student = config.student.model_copy(update={"size": size})
    return config.model_copy(update={"student": student}), _resized(backbone, size)


def _workload(config: RunConfig, listing: Listing) -> tuple[RunConfig, Workload]:
    """The settings with their number of steps, and the images of a run, estimated before any image is read."""
    counts = listing.counts
    held_out = match_domains(config.data.held_out, listing.domains)
    sources = [domain for domain in listing.domains if domain not in held_out]
    images = sum(counts[domain] for domain in sources)
    test = sum(counts.values()) - images
    validation = round(config.data.holdout_fraction * images)
    settings = resolved(config, len(sources), images - validation, unlabelled=False)
    batch = settings.batch_per_domain * len(sources)
    refitted, enlarged = example_count(config.distill, images - validation), config.student.final_size == "auto"
    return settings, Workload(images - validation, batch, validation, test, enlarged, refitted)


def _resized(backbone: Backbone, size: int) -> Backbone:
    return replace(backbone, preprocess=replace(backbone.preprocess, size=size))
