"""An experiment bench: train one variant on every target in minutes, or many at once on a GPU.

    python benchmarks/lab.py prepare --out .lab                                    # once: images, embeddings, weights
    python benchmarks/lab.py run --names adip,adip-lr3 --seeds 0,1,2 --out results.jsonl
    python benchmarks/lab.py run --names style --mode leave --out results.jsonl    # for choosing without the target
    python benchmarks/lab.py queue lab_queue.json --device cuda --at-once 16 --deadline 530 --out results.jsonl
    python benchmarks/lab.py table results.jsonl
    python benchmarks/lab.py speed --device cuda

Losses, splits, batches, augmentation and weight averaging are the product's; data lie in memory. A run that is in the
results already is passed over.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch

from lab_parts.bench import SIDE, Bench, Runner
from lab_parts.slot import Engine
from lab_parts.variant import Job, Variant, read_variants, removals
from vl2v.allocator import keep_freed_memory

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / ".lab"
VARIANTS = HERE / "lab_variants.json"


def main() -> None:
    """Parse the command line and run the command."""
    a = _arguments()
    if a.command == "table":
        from lab_parts.table import show

        show(a.results, a.against)
        return
    if a.command == "prepare":
        from lab_parts.prepare import prepare

        prepare(a.out, a.size, a.quality, a.names.split(","))
        return
    engine = _engine(a)
    if a.command == "speed":
        from lab_parts.speed import measure

        measure(a.data, engine, [int(n) for n in a.numbers.split(",")], a.steps)
        return
    started = time.perf_counter()
    jobs = queued(a.queue, read_variants(a.variants), a.names) if a.command == "queue" else _jobs(a)
    bench = Bench(a.data, engine, a.side)
    print(f"loaded in {time.perf_counter() - started:.1f} s", flush=True)
    deadline = a.deadline - (time.perf_counter() - started)
    Runner(bench, a.out, a.at_once, deadline).run(jobs)


def queued(file: Path, variants: dict[str, Variant], names: str = "") -> list[Job]:
    """Jobs of a JSON list of groups, each with names, and maybe other fields of a job; or only those of `names`."""
    jobs: list[Job] = []
    for group in json.loads(file.read_text()):
        dataset, teacher = group.get("dataset", "pacs"), group.get("teacher", "simulated")
        removed_sets = [tuple(p) for p in group.get("removed", ())] or removals(
            group.get("domains", 4), group.get("mode", "target"), tuple(group.get("targets", ()))
        )
        jobs += [
            Job(variants[name], dataset, teacher, removed, seed)
            for seed in group.get("seeds", [0])
            for name in group["names"]
            if not names or name in names.split(",")
            for removed in removed_sets
        ]
    return jobs


def _jobs(a: argparse.Namespace) -> list[Job]:
    variants = read_variants(a.variants)
    targets = tuple(int(t) for t in a.targets.split(",")) if a.targets else ()
    return [
        Job(variants[name], a.dataset, a.teacher, removed, int(seed))
        for seed in a.seeds.split(",")
        for name in a.names.split(",")
        for removed in removals(4, a.mode, targets)
    ]


def _engine(a: argparse.Namespace) -> Engine:
    device = torch.device(a.device)
    if device.type == "cpu":
        torch.set_num_threads(a.threads)
        return Engine(device, chunk=a.chunk or 4)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = a.cudnn_benchmark
    return Engine(device, a.graphs, a.half, a.compile, a.channels_last, a.chunk or 32)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="write data sets and weights")
    prepare.add_argument("--out", type=Path, default=DATA)
    prepare.add_argument("--size", type=int, default=144)
    prepare.add_argument("--quality", type=int, default=75)
    prepare.add_argument("--names", default="drawings,pacs")
    table = commands.add_parser("table", help="summarise results")
    table.add_argument("results", type=Path, nargs="+")
    table.add_argument("--against", default="adip")
    run = commands.add_parser("run", help="train some variants")
    run.add_argument("--names", required=True)
    run.add_argument("--seeds", default="0")
    run.add_argument("--dataset", default="pacs")
    run.add_argument("--teacher", default="simulated")
    run.add_argument("--mode", choices=["target", "leave"], default="target")
    run.add_argument("--targets", default="")
    queue = commands.add_parser("queue", help="train what a file lists, most important first")
    queue.add_argument("queue", type=Path)
    queue.add_argument("--names", default="", help="train only these variants of the file")
    speed = commands.add_parser("speed", help="measure steps a second")
    speed.add_argument("--numbers", default="1,8", help="of jobs at once")
    speed.add_argument("--steps", type=int, default=128)
    for command in (run, queue, speed):
        _add_engine(command)
    return parser.parse_args()


def _add_engine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--variants", type=Path, default=VARIANTS)
    command.add_argument("--data", type=Path, default=DATA)
    command.add_argument("--out", type=Path, default=Path("lab.jsonl"))
    command.add_argument("--device", default="cpu")
    command.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    command.add_argument("--side", type=int, default=SIDE, help="pixels of the student's images")
    command.add_argument("--at-once", type=int, default=1)
    command.add_argument("--deadline", type=float, default=float("inf"), help="seconds from the start")
    command.add_argument("--chunk", type=int, default=0, help="steps prepared at once")
    for name, default in (("graphs", True), ("half", False), ("compile", False), ("channels-last", True)):
        command.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=default)
    command.add_argument("--cudnn-benchmark", action=argparse.BooleanOptionalAction, default=True)


if __name__ == "__main__":
    keep_freed_memory()
    main()
