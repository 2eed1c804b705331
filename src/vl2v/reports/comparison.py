"""Student compared with the teacher: size, speed on this machine, and cost of a million images."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import torch

from vl2v.faults import naming, reading
from vl2v.pretrained.open_clip import ClipSpec, import_open_clip
from vl2v.reports.sheet import Sheet
from vl2v.reports.source import Source
from vl2v.reports.spending import Spending
from vl2v.student.files import WEIGHTS
from vl2v.student.model import Student
from vl2v.tensor_files import open_tensors

BATCHES = (1, 32)
PATIENCE = 1.5  # time limit in seconds for the measurement of one batch size; at least one run is measured
RUNS = 7
MILLION = 1_000_000


@dataclass(frozen=True)
class Comparison:
    """Size, speed and cost of student and teacher.

    Attributes:
        parameters: number of parameters of the student.
        bytes: size of the file of its weights.
        speed: images per second of the student by batch size, the median of a few runs from pixels in memory to
            logits; empty if it was not measured.
        unmeasured: why it was not measured, or empty.
        teacher_parameters: number of parameters of the image encoder of the teacher, or None if it is unknown.
        price: price of the vendor for one image, or None if it is unknown.
        currency: currency of `price` and `hour_price`.
        hour_price: cost of an hour of this machine, or None if it was not stated.
    """

    parameters: int
    bytes: int
    speed: Mapping[int, float]
    unmeasured: str
    teacher_parameters: int | None
    price: Decimal | None
    currency: str
    hour_price: Decimal | None = None

    @property
    def seconds_per_million(self) -> float | None:
        """Seconds for a million images on this machine, with the larger batch size. None if the speed is unknown."""
        return MILLION / self.speed[BATCHES[-1]] if self.speed else None

    @property
    def student_million(self) -> Decimal | None:
        """Cost of a million images with the student. None without the price of an hour."""
        seconds = self.seconds_per_million
        if seconds is None or self.hour_price is None:
            return None
        return self.hour_price * Decimal(seconds) / 3600

    @property
    def teacher_million(self) -> Decimal | None:
        """Price of the vendor for a million images. None if it is unknown."""
        return None if self.price is None else self.price * MILLION


def compare(source: Source, costs: Spending, hour_price: Decimal | None = None) -> Comparison:
    """Read the sizes from the files, and measure the speed of the student for a few seconds.

    Args:
        costs: spending of the run.
        hour_price: cost of an hour of this machine, in the currency of the teacher.
    """
    weights = source.folder.student / WEIGHTS
    speed, unmeasured = dict[int, float](), ""
    try:
        speed = measure_speed(Student.load(source.folder.student))
    except Exception as error:  # a custom module cannot be built here, but the rest of the page can
        unmeasured = f"The speed of the student was not measured: {' '.join(str(error).split())[:200]}"
    return Comparison(
        _parameters(weights),
        weights.stat().st_size,
        speed,
        unmeasured,
        teacher_parameters(source.config.teacher.spec),
        _price(source, costs),
        costs.currency,
        hour_price,
    )


@torch.inference_mode()
def measure_speed(student: Student) -> dict[int, float]:
    """Return images per second by batch size: the median of a few runs after a warm-up run, with PyTorch's threads."""
    speeds = {}
    side = student.preprocess.size
    for batch in BATCHES:
        lengths = [len(part) for part in student.preprocess.parts(torch.empty(batch))]
        most = torch.zeros(max(lengths), 3, side, side, device=student.device)
        inputs = [most[:length] for length in lengths]
        _once(student, inputs)
        times: list[float] = []
        while not times or (len(times) < RUNS and sum(times) < PATIENCE):
            times.append(_once(student, inputs))
        speeds[batch] = batch / statistics.median(times)
    return speeds


def _once(student: Student, inputs: Sequence[torch.Tensor]) -> float:
    started = time.perf_counter()
    for part in inputs:
        student.logits(student(part)).cpu()
    return time.perf_counter() - started


def machine() -> str:
    """Return the name of the processor, its number of cores, and the threads of PyTorch."""
    threads = torch.get_num_threads()
    thread_text = f"{threads} thread{'' if threads == 1 else 's'}, PyTorch {torch.__version__}"
    return f"{processor()}, {os.cpu_count()} cores, {thread_text}"


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # other systems have none
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def teacher_parameters(spec: str) -> int | None:
    """Count the parameters of the image encoder of an open_clip teacher, without allocating it. None for others."""
    if not spec.startswith("open_clip:"):
        return None
    name = ClipSpec.parse(spec.removeprefix("open_clip:")).model
    try:
        with torch.device("meta"):
            model = import_open_clip("The teacher's size").create_model(name, pretrained=None)
        return int(sum(p.numel() for p in model.visual.parameters()))
    except Exception:  # a model of the hub needs the network; its size is then unknown
        return None


def _parameters(weights: Path) -> int:
    step = "copy the whole folder again from its source"
    with reading(weights, step), naming(weights), open_tensors(weights) as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping


def _price(source: Source, costs: Spending) -> Decimal | None:
    """Return the price of one image: as saved by the run, or for older runs as stated or paid."""
    needed = source.content.get("asked", {})
    if (price := needed.get("price_per_1000_images")) is not None:
        return Decimal(price) / 1000
    if stated := source.config.teacher.price_per_1000_images:
        return stated / 1000
    if needed.get("image_queries") and not Decimal(needed["cost"]):
        return Decimal(0)
    return costs.image_price()


def comparison_sheet(comparison: Comparison) -> Sheet:
    """Return the values of student and teacher."""
    costs = (comparison.student_million, comparison.teacher_million)
    rows = [
        ("parameters", comparison.parameters, comparison.teacher_parameters),
        ("bytes", comparison.bytes, None),
        *((f"images per second, batch {b}", comparison.speed.get(b), None) for b in BATCHES),
        ("seconds per million images", comparison.seconds_per_million, None),
        (f"cost per million images, {comparison.currency}", *(None if c is None else f"{c:.6f}" for c in costs)),
    ]
    return Sheet("student_against_teacher", ("what", "student", "teacher"), rows)
