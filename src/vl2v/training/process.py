"""The process of a run: device, precision and other processes."""

from __future__ import annotations

import importlib.metadata
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, parse_flag_from_env

from vl2v.config import RunConfig
from vl2v.errors import ConfigError

PACKAGES = ("vl2v", "torch", "torchvision", "timm", "accelerate", "numpy", "pillow", "open_clip_torch")

P = ParamSpec("P")
R = TypeVar("R")
_RUNNING = threading.RLock()
CPU_ONLY = "ACCELERATE_USE_CPU"  # environment variable that makes Accelerate ignore a GPU


def in_turn(run: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that trains, so that calls from several threads run one after the other.

    Torch's random state, its number of threads and the state of Accelerate belong to the process, so runs at the same
    time would change each other's students. A call inside another one, such as in its progress callback, does not wait.
    """

    @wraps(run)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with _RUNNING:
            return run(*args, **kwargs)

    return alone


def make_accelerator(config: RunConfig) -> Accelerator:
    """Join the processes that torchrun or accelerate may have started, and choose the device.

    Raises:
        ConfigError: if the requested device is not available.
    """
    precision = precision_of(config)
    if not torch.distributed.is_initialized():
        AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run may have had other settings
    patient = InitProcessGroupKwargs(timeout=timedelta(days=7))  # other processes wait while the first one buys
    accelerator = Accelerator(cpu=config.device == "cpu", mixed_precision=precision, kwargs_handlers=[patient])
    if config.device not in ("auto", accelerator.device.type):
        raise ConfigError(
            f"This machine has no device '{config.device}'.",
            expected="auto, cpu, or a device that torch supports",
            found=str(accelerator.device),
            next_step="--device auto",
        )
    return accelerator


def precision_of(config: RunConfig) -> str:
    """Return the precision of training, with ``auto`` resolved: no, fp16 or bf16.

    bf16 is only chosen for a GPU with native support. MPS computes in float32.
    """
    if config.precision != "auto":
        return config.precision
    gpu = config.device in ("auto", "cuda") and torch.cuda.is_available() and not parse_flag_from_env(CPU_ONLY)
    return "bf16" if gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "no"


@contextmanager
def tuned(device: torch.device) -> Iterator[None]:
    """Within the block, use TF32 for float32 and the fastest algorithms for the shapes of a run, on CUDA only.

    Other devices are not affected, so that results on a CPU stay the same bit for bit.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    matmul, before = torch.get_float32_matmul_precision(), (cudnn.allow_tf32, cudnn.benchmark)
    torch.set_float32_matmul_precision("high")
    cudnn.allow_tf32 = cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        cudnn.allow_tf32, cudnn.benchmark = before


def requested_anywhere(requested: bool, accelerator: Accelerator) -> bool:
    """Whether any process of the run was told to stop, so that all stop at the same step."""
    if accelerator.num_processes > 1:
        flag = torch.tensor(float(requested), device=accelerator.device)
        requested = bool(accelerator.reduce(flag, "sum") > 0)
    return requested


def versions(accelerator: Accelerator) -> dict[str, str]:
    """Return the versions of packages and Python, the machine and the device."""
    versions_by_name = {}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions_by_name[package] = importlib.metadata.version(package)
    versions_by_name |= {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
    }
    return versions_by_name | {"device": accelerator.device.type, "processes": str(accelerator.num_processes)}
