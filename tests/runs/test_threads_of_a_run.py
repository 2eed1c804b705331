"""A run stores its number of threads and continues with it, whatever number the process would use."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch
import yaml
from accelerate import Accelerator
from tiny_dataset import Bench, bench  # noqa: F401 - a fixture

import vl2v
import vl2v.commands.distill
from vl2v import commands, threads
from vl2v.config import RunConfig
from vl2v.errors import Interrupted
from vl2v.interrupts import stop_when
from vl2v.locations import StoragePaths
from vl2v.planning.models import open_student
from vl2v.planning.plan import RunPlan
from vl2v.progress import Silent
from vl2v.runs.folder import RunFolder
from vl2v.training.process import in_turn
from vl2v.training.thread_count import student_threads, training_threads

SMALL: dict[str, Any] = {
    "student": {"size": 32},
    "align": {"steps": 4},
    "distill": {"steps": 6, "checkpoint_every": 2, "learning_rate": 1e-3},
    "batch_per_domain": 4,
    "device": "cpu",
    "workers": 0,
}


class Counting(Silent):
    """Records the number of threads at the start of each stage."""

    def __init__(self) -> None:
        self.threads: dict[str, int] = {}

    def stage(self, title: str, total: int, done: int = 0) -> Any:
        self.threads[title] = torch.get_num_threads()
        return super().stage(title, total, done)


def distill(bench: Bench, out: Path, seen: Counting | None = None, resume: bool = False, **settings: Any) -> Counting:
    seen, storage = seen or Counting(), StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite")
    arguments: dict[str, Any] = {"out": out, "storage": storage, "progress": seen, "report": False}
    if resume:
        assert vl2v.distill(resume=True, **arguments)
    else:
        arguments |= {"settings": SMALL | settings, "held_out": ["rose"]}
        assert vl2v.distill(bench.data, bench.teacher, bench.student, **arguments)
    return seen


def stop(bench: Bench, out: Path, **settings: Any) -> None:
    polls = iter(range(100))
    with pytest.raises(Interrupted), stop_when(lambda: next(polls) >= 7):
        distill(bench, out, **settings)


def config_of(bench: Bench, **more: Any) -> RunConfig:
    parts = {"data": {"root": str(bench.data)}, "teacher": {"spec": bench.teacher}, "device": "cpu"}
    return RunConfig.model_validate(parts | {"student": {"spec": bench.student, "size": 32}} | more)


def student(out: Path) -> bytes:
    return (out / "student/model.safetensors").read_bytes()


def stored(out: Path) -> Any:
    return yaml.safe_load((out / "config.yaml").read_text())["threads"]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A process with two threads, without a number stated by the user."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    yield monkeypatch
    torch.set_num_threads(before)


@pytest.mark.slow
def test_a_resumed_run_continues_with_the_stored_number(bench: Bench, tmp_path: Path, free: pytest.MonkeyPatch) -> None:
    uninterrupted, stopped = tmp_path / "whole", tmp_path / "stopped"
    seen = distill(bench, uninterrupted, threads=2)
    assert (seen.threads["Align"], seen.threads["Distill"]) == (2, 2)
    stop(bench, stopped, threads=2)
    torch.set_num_threads(1)
    free.setenv("OMP_NUM_THREADS", "1")
    seen = distill(bench, stopped, resume=True)
    assert seen.threads["Distill"] == 2
    assert torch.get_num_threads() == 1, "afterwards as before"
    assert (stored(uninterrupted), stored(stopped)) == (2, 2)
    assert student(stopped) == student(uninterrupted)


@pytest.mark.slow
def test_the_measured_number_is_stored_before_the_first_step(
    bench: Bench, tmp_path: Path, free: pytest.MonkeyPatch
) -> None:
    free.setattr("vl2v.training.thread_count.choose", lambda work, images, total: 1)
    stop(bench, tmp_path / "run")
    assert stored(tmp_path / "run") == 1
    free.setattr("vl2v.training.thread_count.choose", lambda work, images, total: 2)
    seen = distill(bench, tmp_path / "run", resume=True)
    assert (seen.threads["Distill"], stored(tmp_path / "run")) == (1, 1)


@pytest.mark.slow
def test_a_run_of_an_earlier_version_continues_with_all_threads(bench: Bench, tmp_path: Path) -> None:
    stop(bench, tmp_path / "run")
    file = tmp_path / "run/config.yaml"
    values = yaml.safe_load(file.read_text())
    del values["threads"]
    file.write_text(yaml.safe_dump(values))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seen = distill(bench, tmp_path / "run", resume=True)
    finally:
        torch.set_num_threads(before)
    assert seen.threads["Distill"] == 2
    assert (tmp_path / "run/evaluation.json").exists()


def test_timing_does_not_change_the_student(bench: Bench, free: pytest.MonkeyPatch) -> None:
    free.setattr(threads, "SHORT", 0.0)
    config = config_of(bench)
    backbone = open_student(config)
    module = backbone.module.train()
    next(iter(module.children())).eval()
    modes = [part.training for part in module.modules()]
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    assert training_threads(config, backbone, 8, Accelerator(cpu=True)) in (1, 2)
    assert torch.equal(torch.rand(3), expected), "the generator as well"
    after = module.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert [part.training for part in module.modules()] == modes
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_stated_number_is_used(bench: Bench, free: pytest.MonkeyPatch) -> None:
    config = config_of(bench, threads=3)
    assert training_threads(config, open_student(config), 8, Accelerator(cpu=True)) == 3


def test_a_finished_student_predicts_with_its_fastest_number(
    bench: Bench, tmp_path: Path, free: pytest.MonkeyPatch
) -> None:
    distill(bench, tmp_path / "run", threads=1)
    student_of_run = vl2v.load(tmp_path / "run")
    free.setattr("vl2v.commands.evaluate.student_threads", lambda student, total: 1)
    seen: list[int] = []
    student_of_run.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    storage = StoragePaths(bench.root / "cache", bench.root / "vectors.sqlite")
    vl2v.evaluate(student_of_run, bench.data, storage=storage)
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2
    assert student_threads(student_of_run, 4) == 1, "a few images are not worth measuring"


def test_runs_of_two_threads_of_one_process_do_not_change_each_other(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, train = Event(), commands.distill._train_and_evaluate
    inside: list[str] = []

    def training(plan: RunPlan, folder: RunFolder, *more: Any) -> Any:
        inside.append(folder.path.name)
        if len(inside) == 2:
            both.set()
        both.wait(1.0)
        try:
            return train(plan, folder, *more)
        finally:
            inside.remove(folder.path.name)

    monkeypatch.setattr(commands.distill, "_train_and_evaluate", training)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: distill(bench, tmp_path / name), ("a", "b")))
    assert not both.is_set()
    a, b = ((tmp_path / name / "student" / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert a == b


def test_a_run_inside_a_progress_callback_and_one_after_a_failed_run_do_not_wait_for_ever() -> None:
    finished: list[int] = []

    @in_turn
    def train(nested: int) -> None:
        if nested:
            train(nested - 1)
        finished.append(nested)
        if len(finished) == 2:
            raise KeyboardInterrupt

    def interrupted() -> None:
        with pytest.raises(KeyboardInterrupt):
            train(1)

    for work in (interrupted, lambda: train(0)):
        thread = Thread(target=work, daemon=True)
        thread.start()
        thread.join(20)
    assert finished == [0, 1, 0]
