"""How many steps a second a device takes, by engine and number of jobs at once."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lab_parts.bench import Bench
from lab_parts.slot import Engine, Slot
from lab_parts.training import plan_of
from lab_parts.variant import Job, Variant

ENGINES: dict[str, dict[str, Any]] = {
    "tf32 channels_last": {},
    "bf16 channels_last": {"half": True},
    "tf32 compiled": {"compiled": True},
    "bf16 compiled": {"compiled": True, "half": True},
    "tf32 contiguous": {"channels_last": False},
    "bf16 contiguous": {"half": True, "channels_last": False},
}


def measure(folder: Path, engine: Engine, numbers: list[int], steps: int, dataset: str = "pacs") -> None:
    """Print steps a second of each engine with each number of jobs; augmentation apart.

    Args:
        folder: the bench's data.
        engine: the device; its other settings are varied.
        numbers: of jobs at once, ascending.
        steps: of each job.
        dataset: its file's name.
    """
    first = Bench(folder, engine)
    shared_data = first.shared_data(dataset)
    variant = Variant(name="speed", style=0.3, corrupt=0.2)
    job = Job(variant, dataset, next(iter(shared_data.data.teachers)), (0,), 0)
    goals = plan_of(job, shared_data.data)
    for name, settings in ENGINES.items():
        try:
            bench = Bench(folder, replace(engine, **settings))
            shared = replace(shared_data, network=bench.network, engine=bench.engine)
            slots: list[Slot] = []
            for number in numbers:
                started = time.perf_counter()
                while len(slots) < number:
                    slot = shared.slot(job, goals)
                    with slot.on_stream():
                        slot.begin(
                            goals, variant, torch.randn(slot.layer_size, device=engine.device) * 0.01, (0.0, 0.0)
                        )
                        slot.run(1)
                    slots.append(slot)
                _wait(engine)
                ready = time.perf_counter() - started
                started = time.perf_counter()
                for _ in range(max(steps // 16, 1)):
                    for slot in slots:
                        with slot.on_stream():
                            slot.step.zero_()
                            slot.run(min(16, steps, engine.chunk))
                issued = time.perf_counter() - started
                _wait(engine)
                seconds = time.perf_counter() - started
                total = number * max(steps // 16, 1) * min(16, steps, engine.chunk)
                print(
                    f"{name}, {number} jobs: {total / seconds:.0f} steps/s ({issued / seconds:.0%} of it issuing),"
                    f" made ready in {ready:.1f} s, graph {slots[-1].graph is not None}, {_memory(engine)}",
                    flush=True,
                )
            del slots
        except Exception as error:  # the other engines are still of interest
            print(f"{name}: {type(error).__name__}: {error}"[:600], flush=True)


def _wait(engine: Engine) -> None:
    if engine.device.type == "cuda":
        torch.cuda.synchronize()


def _memory(engine: Engine) -> str:
    if engine.device.type != "cuda":
        return "on the CPU"
    return f"{torch.cuda.memory_reserved() / 1e9:.1f} GB"
