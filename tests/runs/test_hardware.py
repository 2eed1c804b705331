"""What a run derives from its device: the precision, and torch's settings for a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from tiny_dataset import TINY, Bench, bench  # noqa: F401 - a fixture
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import vl2v
from vl2v.benchmark.protocol import Origin, key_of
from vl2v.config import RunConfig
from vl2v.errors import Interrupted
from vl2v.interrupts import stop_when
from vl2v.locations import StoragePaths
from vl2v.method.base import Context
from vl2v.method.distill import distill
from vl2v.method.loop import Batch
from vl2v.method.registry import BUILT_IN, METHODS
from vl2v.method.swad import LossValley
from vl2v.micro_batch import MicroBatch
from vl2v.threads import cores
from vl2v.training.data import loading_processes
from vl2v.training.process import make_accelerator, precision_of, tuned


def config_of(**more: Any) -> RunConfig:
    parts = {"data": {"root": "x"}, "teacher": {"spec": "file:x"}, "student": {"spec": "timm:x"}}
    return RunConfig.model_validate(parts | more)


@pytest.mark.parametrize(
    ("settings", "gpu", "bf16", "expected"),
    [
        ({}, True, True, "bf16"),
        ({"device": "cuda"}, True, True, "bf16"),
        ({}, True, False, "no"),
        ({}, False, False, "no"),
        ({"device": "cpu"}, True, True, "no"),
        ({"device": "mps"}, True, True, "no"),
        ({"precision": "no"}, True, True, "no"),
        ({"precision": "fp16"}, True, True, "fp16"),
        ({"precision": "bf16", "device": "cpu"}, False, False, "bf16"),
    ],
)
def test_the_precision_follows_the_device(
    settings: dict[str, Any], gpu: bool, bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert precision_of(config_of(**settings)) == expected


def test_a_gpu_that_accelerate_ignores_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert precision_of(config_of()) == "no"


@pytest.mark.slow
def test_a_run_stores_the_value_that_auto_selects(bench: Bench, tmp_path: Path) -> None:
    storage = StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite")
    settings = TINY | {"distill": {"steps": 2, "checkpoint_every": 1}, "align": {"steps": 2}}
    with pytest.raises(Interrupted), stop_when(lambda: True):
        vl2v.distill(
            bench.data, bench.teacher, bench.student, out=tmp_path / "run", settings=settings, storage=storage
        )  # fmt: skip
    written = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert written["precision"] == "no"


def flags() -> tuple[Any, ...]:
    cudnn = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark


def test_a_gpu_is_tuned_while_a_run_uses_it() -> None:
    before = flags()
    torch.backends.cudnn.allow_tf32 = False
    try:
        with tuned(torch.device("cpu")):
            assert flags() == (before[0], False, before[2])
        with tuned(torch.device("cuda")):
            assert flags() == ("high", True, True)
        assert flags() == (before[0], False, before[2])
    finally:
        torch.backends.cudnn.allow_tf32 = before[1]


def test_jobs_of_earlier_versions_have_the_same_key() -> None:
    origin = Origin("data", "teacher", "student")
    keys = {key_of(config_of(**more), origin) for more in ({}, {"precision": "no"}, {"compile": True})}
    assert len(keys) == 1
    assert key_of(config_of(precision="fp16"), origin) not in keys


class NoFloat64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses tensors that MPS does not have."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        assert not (isinstance(result, Tensor) and result.dtype == torch.float64), function
        return result


@pytest.mark.parametrize("name", BUILT_IN)
def test_no_step_computes_in_float64(name: str) -> None:
    method, head = METHODS[name], F.normalize(torch.eye(3, 4), dim=-1)
    context: Context[Any] = Context(head, 10.0, method.settings(), texts=torch.randn(3, 2, 4))
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(48, 6))
    width = 3 if method.classifier == "linear" else 4
    layer = method.layer(6, head) if method.layer else nn.Linear(6, width)
    penalty = method.penalty(backbone, torch.zeros(2, 3, 4, 4)) if method.penalty else None
    labels = torch.tensor([0, 2, 1, 0])
    batch = Batch(torch.randn(4, 3, 4, 4), torch.randn(4, 4), head[labels], None, labels)
    train: Callable[..., Any] = distill
    with NoFloat64():  # type: ignore[no-untyped-call]
        train(
            backbone, layer, [batch, batch], objective=method.objective(context), train_projection=True,
            penalty=penalty, swad=LossValley(1, 1, 0.3), validate=lambda step: 1.0, micro=MicroBatch(3),
        )  # fmt: skip


def test_the_accelerator_has_the_precision() -> None:
    assert make_accelerator(config_of(device="cpu")).mixed_precision == "no"


@pytest.mark.parametrize(
    ("workers", "device", "available", "processes", "expected"),
    [
        ("auto", "cpu", 16, 1, 0),
        ("auto", "cuda", 16, 1, 8),
        ("auto", "cuda", 4, 1, 3),
        ("auto", "cuda", 1, 1, 1),
        ("auto", "cuda", 16, 4, 3),
        ("auto", "mps", 8, 1, 7),
        (5, "cpu", 2, 1, 5),
        (0, "cuda", 16, 1, 0),
    ],
)
def test_the_number_of_loading_processes_follows_device_and_cores(
    workers: Any, device: str, available: int, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vl2v.training.data.cores", lambda: available)
    assert loading_processes(config_of(workers=workers).workers, torch.device(device), processes) == expected


def test_settings_of_earlier_versions_have_no_workers() -> None:
    assert config_of(workers=None).workers == config_of().workers == config_of(workers="auto").workers is None
    assert config_of(workers="3").workers == 3
    with pytest.raises(ValueError, match="workers"):
        config_of(workers="many")


@pytest.mark.parametrize(
    ("limit", "expected"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 6), ("9900000 100000", 6)]
)
def test_a_container_has_the_cores_of_its_cpu_limit(
    limit: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    monkeypatch.setattr("vl2v.threads.CPU_LIMIT", tmp_path / "cpu.max")
    monkeypatch.setattr("vl2v.threads.os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert cores() == expected
