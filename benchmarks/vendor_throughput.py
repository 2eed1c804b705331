"""The vendor service under 50 concurrent clients for a minute: whether the meter is exact, and the overhead of serving.

The model is open_clip's ViT-B-32 with random weights (its speed is that of any weights). First its bare batch rate is
measured: `embed_images` of full batches of JPEG files, in this process. Then `vl2v vendor serve`'s own code runs
around the same teacher in another process, and 50 clients send requests in parallel, 1 to 8 images each, with base64
answers. One run of the bare model before and one after the load, since a shared machine's speed drifts; ratios are to
their mean.

Two ratios: by the clock, in which the clients take their share of the same cores and other work on the machine counts;
and by the CPU seconds of the server's process, which says what the service adds to the model and nothing else. With
`--tiny` the model costs almost nothing, so that the meter sees thousands of requests; its ratios say what HTTP costs.

    taskset -c 0 env OMP_NUM_THREADS=1 python benchmarks/vendor_throughput.py --seconds 60
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import torch
from PIL import Image
from safetensors.torch import save_file
from sqlalchemy import func, select

from common import circumstances, keep, served
from vl2v.pretrained.open_clip import import_open_clip
from vl2v.teacher.base import Price, Teacher
from vl2v.teacher.registry import open_teacher
from vl2v.vendor_server.accounts import Accounts
from vl2v.vendor_server.database import bills, open_database
from vl2v.vendor_server.running import run
from vl2v.vendor_server.service import Service
from vl2v.vendor_server.settings import VendorSettings

MODEL, CLIENTS, FILES, LARGEST = "ViT-B-32", 50, 64, 8


TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def know_tiny(folder: Path) -> None:
    """Tell open_clip, in this process, of a model so fast that serving is all the work."""
    (folder / "tiny.json").write_text(json.dumps(TINY))
    import_open_clip("This benchmark").add_model_config(folder / "tiny.json")


def photographs() -> list[bytes]:
    """JPEG files of 224 x 224 smooth random colours, about 10 kB each."""
    figures = []
    for seed in range(FILES):
        values = np.random.default_rng(seed).integers(0, 256, (14, 14, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(values).resize((224, 224), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        figures.append(buffer.getvalue())
    return figures


def bare_rate(teacher: Teacher, files: list[bytes], seconds: float) -> tuple[float, float]:
    """Measure the model alone in full batches: images (per second, per CPU second)."""
    size, done = teacher.describe().batch_size, 0
    batch = (files * (size // len(files) + 1))[:size]
    teacher.embed_images(batch)
    started, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        teacher.embed_images(batch)
        done += size
    return done / (time.perf_counter() - started), done / (time.process_time() - cpu)


async def load(url: str, model: str, keys: list[str], files: list[bytes], seconds: float) -> dict[str, Any]:
    """Run fifty clients, each of which sends its next request as soon as it gets a response."""
    packed = [base64.b64encode(data).decode() for data in files]
    latencies: list[float] = []
    answered = dict.fromkeys(keys, 0)
    refused = 0
    end = time.perf_counter() + seconds

    async def client(number: int, http: httpx.AsyncClient) -> None:
        nonlocal refused
        draw = np.random.default_rng(number)
        while time.perf_counter() < end:
            images = [{"image": packed[i]} for i in draw.integers(0, FILES, draw.integers(1, LARGEST + 1))]
            body = {"model": model, "input": images, "encoding_format": "base64"}
            started = time.perf_counter()
            headers = {"authorization": f"Bearer {keys[number]}"}
            answer = await http.post(f"{url}/v1/embeddings", json=body, headers=headers)
            latencies.append(time.perf_counter() - started)
            if answer.status_code != 200 or len(answer.json()["data"]) != len(images):
                refused += 1
            else:
                answered[keys[number]] += len(images)

    async with httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=CLIENTS), verify=False) as http:
        started = time.perf_counter()
        await asyncio.gather(*(client(number, http) for number in range(len(keys))))
        took = time.perf_counter() - started
        usages = [(await http.get(f"{url}/v1/usage", headers={"authorization": f"Bearer {k}"})).json() for k in keys]
    wrong = [key for key, usage in zip(keys, usages, strict=True) if usage["images"] != answered[key]]
    p50, p99 = np.percentile(latencies, [50, 99])
    return {
        "seconds": took,
        "requests": len(latencies),
        "not_answered": refused,
        "images": sum(answered.values()),
        "images_per_second": sum(answered.values()) / took,
        "latency_p50_s": float(p50),
        "latency_p99_s": float(p99),
        "accounts_whose_meter_differs": len(wrong),
    }


def serve(name: str, weights: str, db: str, port: int) -> None:
    """The server's process."""
    know_tiny(Path(weights).parent)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    teacher = open_teacher(f"open_clip:{name}/{weights}", device="cpu")
    run(Service(teacher, open_database(db), VendorSettings("", db=db, port=port)))


def cpu_seconds(pid: int | None) -> float:
    """Return the CPU time that a process has used so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Measure and save the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tiny", action="store_true", help="A tiny model: many requests, for the meter's sake.")
    chosen = parser.parse_args()
    seconds, name = chosen.seconds, "tiny" if chosen.tiny else MODEL
    before, files = circumstances(), photographs()
    with tempfile.TemporaryDirectory() as scratch:
        weights, db = Path(scratch) / "clip.safetensors", f"sqlite:///{scratch}/accounts.sqlite"
        torch.manual_seed(0)
        know_tiny(Path(scratch))
        model = import_open_clip("This benchmark").create_model(name)
        save_file({k: v.contiguous().clone() for k, v in model.state_dict().items()}, weights)
        teacher = open_teacher(f"open_clip:{name}/{weights}", device="cpu")
        engine = open_database(db)
        keys = [Accounts(engine).create(f"client {i}", Price(Decimal("0.6")))[1] for i in range(CLIENTS)]
        bare = [bare_rate(teacher, files, seconds / 3)]
        with served(serve, name, str(weights), db) as (port, process):
            own_seconds, others = time.process_time(), cpu_seconds(process)
            figures = asyncio.run(load(f"http://127.0.0.1:{port}", teacher.describe().identity, keys, files, seconds))
            own_seconds, others = time.process_time() - own_seconds, cpu_seconds(process) - others
        bare.append(bare_rate(teacher, files, seconds / 3))
        with engine.connect() as database:
            rows = database.execute(select(func.count(), func.sum(bills.c.images), func.sum(bills.c.cost_nano))).one()
    figures |= {
        "billed_requests": rows[0],
        "billed_images": int(rows[1]),
        "billed_cost": str(Decimal(int(rows[2])) / 10**9),
        "bare_images_per_second": [rate[0] for rate in bare],
        "bare_images_per_cpu_second": [rate[1] for rate in bare],
        "images_per_server_cpu_second": figures["images"] / others,
        "ratio_by_clock": figures["images_per_second"] / (sum(rate[0] for rate in bare) / 2),
        "ratio_by_cpu": figures["images"] / others / (sum(rate[1] for rate in bare) / 2),
        "server_cpu_share": others / figures["seconds"],
        "clients_cpu_share": own_seconds / figures["seconds"],
        "exact": int(rows[1]) == figures["images"] and rows[0] == figures["requests"] - figures["not_answered"],
        "cpus": len(os.sched_getaffinity(0)),
        "model": name,
        "batch": teacher.describe().batch_size,
        "circumstances": before,
    }
    keep(f"vendor_throughput{'_tiny' * chosen.tiny}", figures)


if __name__ == "__main__":
    main()
