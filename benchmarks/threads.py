"""Images per second of the training step by threads: alone, next to a process that spins, and next to one that trains.

Each way trains in a process of its own, in turn, so that other work on the machine meets all of them:

- `one`: one thread;
- `before`: as many threads as torch uses, which spin while they wait for each other;
- `asleep`: as many, which sleep while they wait;
- `after`: as in `vl2v distill`: threads that each compute a part of the batch, of the number that was measured
  before the first step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

WAYS = ("one", "before", "asleep", "after")
SITUATIONS = ("idle", "next to a spinner", "next to a trainer")
SIZE, BATCH = 128, 24
POLICY = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # of the caller's environment


def work(way: str) -> None:
    """The child process: train for the seconds in each line of standard input, and print the rate."""
    if way in ("asleep", "after"):
        from vl2v.threads import sleep_while_waiting

        sleep_while_waiting()
    from vl2v.allocator import keep_freed_memory

    keep_freed_memory()
    import torch

    if way == "one":
        torch.set_num_threads(1)
    step = training_step(measure=way == "after")
    for _ in range(3):
        step()
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        started, count = time.perf_counter(), 0
        while (passed := time.perf_counter() - started) < float(line):
            step()
            count += 1
        print(json.dumps({"rate": count * BATCH / passed}), flush=True)


def training_step(measure: bool) -> Callable[[], None]:
    """A step of Distill on noise: EfficientNet-Lite0, projection, cosine loss, Adam."""
    import torch
    import torch.nn.functional as F
    from accelerate import Accelerator

    from vl2v.config import RunConfig
    from vl2v.method.distill import Projected
    from vl2v.method.loop import adam
    from vl2v.shards import sharding
    from vl2v.student.backbones import load_backbone
    from vl2v.training.thread_count import training_threads

    backbone = load_backbone("offline:", size=SIZE)
    config = RunConfig.model_validate(
        {"data": {"root": "."}, "teacher": {"spec": "offline:"}, "student": {"spec": "offline:"}, "device": "cpu"}
    )
    if measure:
        torch.set_num_threads(training_threads(config, backbone, BATCH, Accelerator(cpu=True)) or 1)
    model = Projected(backbone.module, torch.nn.Linear(backbone.features, 384)).to(memory_format=torch.channels_last)
    optimizer = adam(model.parameters(), 5e-5)
    images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    targets = torch.randn(BATCH, 384)
    model.train()

    def step() -> None:
        with sharding(BATCH, possible=measure) as shards:
            loss = -F.cosine_similarity(shards.train(model, images), targets).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


class Trainer:
    """A child process that trains in one way on request."""

    def __init__(self, way: str) -> None:
        environment = {key: value for key, value in os.environ.items() if key not in POLICY}
        pipe = subprocess.PIPE
        command = [sys.executable, __file__, "--way", way]
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
        self.threads = int(self._answer()["threads"])

    def rate(self, seconds: float) -> float:
        """Measure images per second over some seconds."""
        self.begin(seconds)
        return float(self._answer()["rate"])

    def begin(self, seconds: float) -> None:
        """Train for some seconds without waiting for the end."""
        to = self._pipe(self.process.stdin)
        to.write(f"{seconds}\n")
        to.flush()

    def end(self) -> None:
        """End the child."""
        self.process.kill()
        self.process.wait()

    def _answer(self) -> Any:
        line = self._pipe(self.process.stdout).readline()
        if not line:
            raise SystemExit(f"a child ended: {self.process.wait()}")
        return json.loads(line)

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


@contextmanager
def neighbour(situation: str) -> Iterator[None]:
    """While open, the machine has other work, or none."""
    if situation == "idle":
        yield
    elif situation == "next to a spinner":
        spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            yield
        finally:
            spinner.kill()
            spinner.wait()
    else:
        trainer = Trainer("one")
        trainer.begin(3600)
        try:
            yield
        finally:
            trainer.end()


def ratio(rates: dict[str, list[float]], way: str, other: str) -> float:
    """Return the median over rounds of the ratio of two rates."""
    return statistics.median(a / b for a, b in zip(rates[way], rates[other], strict=True))


def main() -> None:
    """Measure all ways in all situations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=4, help="times that each is measured (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default: %(default)s)")
    a = parser.parse_args()
    if a.way:
        work(a.way)
        return
    sys.path.insert(0, str(Path(__file__).parent))
    from common import circumstances, keep, spread

    before = circumstances()
    rates: dict[str, dict[str, list[float]]] = {s: {way: [] for way in WAYS} for s in SITUATIONS}
    with ExitStack() as stack:
        trainers = {}
        for way in WAYS:  # one after the other: `after` measures while nothing else runs
            trainers[way] = Trainer(way)
            stack.callback(trainers[way].end)
        for situation in SITUATIONS:
            with neighbour(situation):
                for _ in range(a.rounds):
                    for way, trainer in trainers.items():
                        rates[situation][way].append(trainer.rate(a.seconds))
        numbers = {way: trainer.threads for way, trainer in trainers.items()}
    summary = {
        situation: {
            "images_per_second": {way: spread(measured[way]) for way in WAYS},
            "before_over_one": ratio(measured, "before", "one"),
            "after_over_one": ratio(measured, "after", "one"),
            "after_over_before": ratio(measured, "after", "before"),
        }
        for situation, measured in rates.items()
    }
    keep("threads", {"threads": numbers, **summary, "circumstances": before})
    print(table(rates, numbers))


def table(rates: dict[str, dict[str, list[float]]], numbers: dict[str, int]) -> str:
    """Medians as Markdown."""
    head = ["images/s", *(f"{way} ({numbers[way]})" for way in WAYS), "after / one", "after / before"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for situation, measured in rates.items():
        medians = [f"{statistics.median(measured[way]):.0f}" for way in WAYS]
        lines.append([situation, *medians, *(f"{ratio(measured, 'after', o):.2f}" for o in ("one", "before"))])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
