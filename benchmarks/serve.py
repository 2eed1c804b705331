"""Overhead of serving: one request at a time, and several clients at once.

`vl2v serve`'s own code runs in another process around an exported run, with one thread for the network, as the bare
model here has. At batch 1, both are queried in turn with the same JPEG files: `vl2v_runtime.Model.predict` of a file's
bytes in this process, and `POST /v1/predict` with those bytes over localhost, on a persistent connection. The
median of their differences, pair by pair, is the overhead of serving. Then several clients send requests at once, each
the next one as soon as it has a response. The result contains requests per second, and the rate of the bare model.

    OMP_NUM_THREADS=1 python benchmarks/serve.py RUN IMAGES
"""

from __future__ import annotations

import argparse
import http.client
import random
import socket
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import vl2v_runtime
from common import circumstances, keep, served, spread
from vl2v_runtime.formats import SUFFIXES

HEADERS = {"content-type": "image/jpeg"}
CLIENTS = (1, 2, 4, 8)


def serve(run: str, port: int) -> None:
    """In the server's process."""
    from vl2v.locations import StoragePaths
    from vl2v.progress import Silent
    from vl2v.serve.running import serve as work
    from vl2v.serve.settings import ServeSettings

    work(ServeSettings(Path(run), port=port, threads=1, edits=False), StoragePaths(), Silent())


def connect(port: int) -> http.client.HTTPConnection:
    """Open a persistent connection to the server that sends small packets immediately."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def ask(connection: http.client.HTTPConnection, data: bytes) -> bytes:
    """Send one request and return the body of the response."""
    connection.request("POST", "/v1/predict?top_k=5", data, HEADERS)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    return body


def in_turn(model: vl2v_runtime.Model, port: int, files: list[bytes], pairs: int) -> dict[str, Any]:
    """Measure the bare and the served model alternately, in milliseconds. The order changes from pair to pair."""
    connection = connect(port)
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(-10, pairs):
        data = files[i % len(files)]
        for which in ((0, 1), (1, 0))[i % 2]:
            started = time.perf_counter()
            if which:
                ask(connection, data)
            else:
                model.predict(data)
            if i >= 0:  # the first ones warm up
                times[which].append(1000 * (time.perf_counter() - started))
    bare, served = times
    added = [b - a for a, b in zip(bare, served, strict=True)]
    return {
        "bare_ms": spread(bare),
        "served_ms": spread(served),
        "added_ms": spread(added),
        "difference_of_medians_ms": statistics.median(served) - statistics.median(bare),
    }


def together(port: int, files: list[bytes], clients: int, seconds: float) -> dict[str, float]:
    """Measure requests per second of several concurrent clients, and the median latency."""
    end, lock = time.perf_counter() + seconds, threading.Lock()
    times: list[float] = []

    def client(number: int) -> None:
        connection, draw = connect(port), random.Random(number)
        while time.perf_counter() < end:
            started = time.perf_counter()
            ask(connection, draw.choice(files))
            with lock:
                times.append(time.perf_counter() - started)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    return {"requests_per_second": len(times) / took, "median_ms": 1000 * statistics.median(times)}


def bare_rate(model: vl2v_runtime.Model, files: list[bytes], seconds: float) -> float:
    """Measure images per second of the bare model, one at a time."""
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        model.predict(files[done % len(files)])
        done += 1
    return done / (time.perf_counter() - started)


def main() -> None:
    """Measure, print and save the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", help="a finished run, exported, with its gallery")
    parser.add_argument("images", type=Path, help="a folder of images")
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each number of clients")
    chosen = parser.parse_args()
    paths = sorted(path for path in chosen.images.rglob("*") if path.suffix.lower() in SUFFIXES)
    files = [path.read_bytes() for path in random.Random(0).sample(paths, min(64, len(paths)))]
    model, before = vl2v_runtime.load(chosen.run, threads=1), circumstances()
    with served(serve, chosen.run) as (port, _):
        figures = in_turn(model, port, files, chosen.pairs)
        figures["bare_per_second"] = bare_rate(model, files, chosen.seconds)
        figures["clients"] = {str(n): together(port, files, n, chosen.seconds) for n in CLIENTS}
    size = {"image_size": model.size, "classes": len(model.classes), "file_kb": sum(map(len, files)) / len(files) / 1e3}
    keep("serve", {**figures, **size, "goal_ms": 5.0, "circumstances": before})


if __name__ == "__main__":
    main()
