"""Effect of keeping freed memory on a CPU, for a training step and a forward pass of a student."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from common import circumstances, keep, spread

ROUNDS = 3


def measure(keep_freed: bool) -> dict[str, float]:
    """Measure the median seconds of a training step of 24 images and of a forward pass of 64, at 128 px."""
    if keep_freed:
        from vl2v.allocator import keep_freed_memory

        assert keep_freed_memory()
    import timm
    import torch

    from vl2v.method.distill import Projected

    torch.set_num_threads(1)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    model = Projected(network, torch.nn.Linear(network.num_features, 384)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), 5e-5)
    images = torch.randn(64, 3, 128, 128).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        loss = model(images[:24]).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    seconds_of_part = {}
    model.train()
    seconds_of_part["step"] = timed(step)
    model.eval()
    with torch.no_grad():
        seconds_of_part["forward"] = timed(lambda: model(images))
    return seconds_of_part


def timed(work: object, times: int = 12) -> float:
    """Return the median time of some calls after three warm-up calls."""
    assert callable(work)
    seconds = []
    for _ in range(times + 3):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return sorted(seconds[3:])[times // 2]


def main() -> None:
    """Measure both settings alternately, each in its own process."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1] == "held")))
        return
    runs: dict[str, list[dict[str, float]]] = {"plain": [], "held": []}
    for _ in range(ROUNDS):
        for mode, measured_runs in runs.items():
            done = subprocess.run([sys.executable, __file__, mode], capture_output=True, text=True, check=True)
            measured_runs.append(json.loads(done.stdout))
    pairs = list(zip(runs["plain"], runs["held"], strict=True))
    ratios = {f"{part}_ratio": spread([a[part] / b[part] for a, b in pairs]) for part in ("step", "forward")}
    keep("allocator", ratios | {"seconds": runs, "circumstances": circumstances()})


if __name__ == "__main__":
    main()
