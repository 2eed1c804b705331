"""Student against teacher: how large, how fast here, and what a million images cost."""

from __future__ import annotations

import os
import platform
import statistics
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import torch
from safetensors import safe_open

from vl2v.faults import naming, reading
from vl2v.pretrained.open_clip import ClipSpec, import_open_clip
from vl2v.reports.sheet import Sheet
from vl2v.reports.source import Source
from vl2v.reports.spending import Spending
from vl2v.student.files import WEIGHTS
from vl2v.student.model import Student

BATCHES = (1, 32)
PATIENCE = 1.5  # seconds that one batch size may take to be measured, at least one run whatever it takes
RUNS = 7
MILLION = 1_000_000


@dataclass(frozen=True)
class Speed:
    """Images per second by batch size, pixels in memory to logits, the median of a few runs.

    Attributes:
        images_per_second: by batch size.
        machine: which, and how many threads.
    """

    images_per_second: dict[int, float]
    machine: str


@dataclass(frozen=True)
class Comparison:
    """What stands beside the accuracies.

    Attributes:
        parameters: of the student.
        bytes: of its weights' file.
        speed: None where it was not measured.
        unmeasured: why not, or empty.
        teacher_parameters: of its image encoder; None if not known.
        price: what the vendor asks for one image; None if not known.
        currency: of `price` and `hour_price`.
        hour_price: what an hour of this machine is said to cost; None if nobody said.
    """

    parameters: int
    bytes: int
    speed: Speed | None
    unmeasured: str
    teacher_parameters: int | None
    price: Decimal | None
    currency: str
    hour_price: Decimal | None = None

    @property
    def seconds_per_million(self) -> float | None:
        """Of this machine, at the larger batch; None where the speed is not known."""
        return MILLION / self.speed.images_per_second[BATCHES[-1]] if self.speed else None

    @property
    def student_million(self) -> Decimal | None:
        """Cost of a million images at the stated price of an hour; None without one."""
        seconds = self.seconds_per_million
        if seconds is None or self.hour_price is None:
            return None
        return self.hour_price * Decimal(seconds) / 3600

    @property
    def teacher_million(self) -> Decimal | None:
        """What the vendor asks for a million images; None if its price is not known."""
        return None if self.price is None else self.price * MILLION


def compare(source: Source, paid: Spending, hour_price: Decimal | None = None) -> Comparison:
    """Look at the files, and measure the student for a few seconds.

    Args:
        source: the run.
        paid: its spending.
        hour_price: of this machine, in the teacher's currency.
    """
    weights = source.folder.student / WEIGHTS
    speed, unmeasured = None, ""
    try:
        speed = measure_speed(Student.load(source.folder.student))
    except Exception as error:  # a module of the user's own cannot be built here; the rest of the page can
        unmeasured = f"The speed of the student was not measured: {' '.join(str(error).split())[:200]}"
    return Comparison(
        _parameters(weights),
        weights.stat().st_size,
        speed,
        unmeasured,
        teacher_parameters(source.config.teacher.spec),
        _price(source, paid),
        paid.currency,
        hour_price,
    )


@torch.inference_mode()
def measure_speed(student: Student, patience: float = PATIENCE) -> Speed:
    """The median over a few runs, after one to warm up; with the number of threads that PyTorch has now."""
    found = {}
    side = student.preprocess.size
    for batch in BATCHES:
        inputs = torch.zeros(batch, 3, side, side, device=student.device)
        _once(student, inputs)
        times: list[float] = []
        while not times or (len(times) < RUNS and sum(times) < patience):
            times.append(_once(student, inputs))
        found[batch] = batch / statistics.median(times)
    threads = torch.get_num_threads()
    return Speed(found, f"{machine()}, {threads} thread{'' if threads == 1 else 's'}, PyTorch {torch.__version__}")


def _once(student: Student, inputs: torch.Tensor) -> float:
    started = time.perf_counter()
    student.logits(student(inputs)).cpu()
    return time.perf_counter() - started


def machine() -> str:
    """The processor's name and its number of cores."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:  # other systems have none
        pass
    return f"{name}, {os.cpu_count()} cores"


def teacher_parameters(spec: str) -> int | None:
    """Parameters of an open_clip teacher's image encoder, built without memory; None for any other teacher."""
    if not spec.startswith("open_clip:"):
        return None
    name = ClipSpec.parse(spec.removeprefix("open_clip:")).model
    try:
        with torch.device("meta"):
            model = import_open_clip("The teacher's size").create_model(name, pretrained=None)
        return int(sum(p.numel() for p in model.visual.parameters()))
    except Exception:  # a model of the hub asks for the network; the size is then not known
        return None


def _parameters(weights: Path) -> int:
    total = 0
    step = "copy the whole folder again from its source"
    with reading(weights, step), naming(weights), safe_open(weights, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            count = 1
            for side in file.get_slice(name).get_shape():
                count *= side
            total += count
    return total


def _price(source: Source, paid: Spending) -> Decimal | None:
    """Of one image: the card's, as the run kept it; in an older run what was stated, or what was paid."""
    kept = source.content.get("asked", {}).get("price_per_1000_images")
    stated = source.config.teacher.price_per_1000_images
    if kept is not None:
        return Decimal(kept) / 1000
    if stated:
        return stated / 1000
    asked = source.content.get("asked", {})
    if asked.get("image_queries") and not Decimal(asked["cost"]):
        return Decimal(0)
    return paid.image_price()


def comparison_sheet(found: Comparison) -> Sheet:
    """Student and teacher side by side."""
    speeds = found.speed.images_per_second if found.speed else {}
    rows = [
        ("parameters", found.parameters, found.teacher_parameters),
        ("bytes", found.bytes, None),
        *((f"images per second, batch {b}", speeds.get(b), None) for b in BATCHES),
        ("seconds per million images", found.seconds_per_million, None),
        (f"cost per million images, {found.currency}", _plain(found.student_million), _plain(found.teacher_million)),
    ]
    return Sheet.of("student_against_teacher", ("what", "student", "teacher"), rows)


def _plain(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:.6f}"
