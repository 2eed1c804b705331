"""The choice of the number of threads on a simulated clock, and its effect."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from vl2v import threads


class Machine:
    """A clock that work advances by the time that its number of threads takes for an image."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds, self.now, self.count = seconds, 0.0, 0
        self.calls: list[tuple[int, int]] = []

    def use(self, count: int) -> None:
        self.count = count

    def work(self, images: int) -> None:
        self.calls.append((self.count, images))
        self.now += images * self.seconds[self.count]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, float]], Machine]:
    def make(seconds: dict[int, float]) -> Machine:
        simulated = Machine(seconds)
        monkeypatch.setattr("vl2v.threads.time.perf_counter", lambda: simulated.now)
        return simulated

    return make


@pytest.fixture
def two() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({1: 1.0}, 1),
        ({1: 1.0, 2: 0.92}, 1),
        ({1: 1.0, 2: 0.86}, 2),
        ({1: 1.0, 2: 3.0}, 1),
        ({1: 1.0, 8: 0.30, 16: 0.29}, 8),
        ({1: 1.0, 8: 0.30, 16: 0.25}, 16),
        ({1: 1.0, 8: 0.95, 16: 0.80}, 16),
    ],
)
def test_one_thread_is_used_unless_more_are_clearly_faster(seconds: dict[int, float], chosen: int) -> None:
    assert threads.preferred(seconds) == chosen


def test_one_half_and_all_are_measured_in_turn(machine: Callable[[dict[int, float]], Machine]) -> None:
    m = machine({1: 0.010, 4: 0.004, 8: 0.002})
    threads_chosen = threads.measured(m.work, 10, 100_000, 8, m.use)
    assert threads_chosen == pytest.approx({1: 0.1, 4: 0.04, 8: 0.02})
    assert [count for count, _ in m.calls[5:]] == [1, 4, 8] * threads.ROUNDS
    assert {images for _, images in m.calls} == {10}


def test_short_work_is_not_measured(machine: Callable[[dict[int, float]], Machine]) -> None:
    m = machine({1: 0.01})
    assert threads.preferred(threads.measured(m.work, 10, 200, 8, m.use)) == 1
    assert len(m.calls) == 2


def test_slow_steps_are_measured_with_fewer_images_and_less_often(
    machine: Callable[[dict[int, float]], Machine],
) -> None:
    m = machine({1: 0.1, 2: 0.06})
    threads_chosen = threads.measured(m.work, 100, 100_000, 2, m.use)
    assert threads_chosen == pytest.approx({1: 1.0, 2: 0.6})
    assert {images for _, images in m.calls[2:]} == {10}
    slower = machine({1: 4.0, 2: 2.0})
    threads.measured(slower.work, 16, 100_000, 2, slower.use)
    assert {images for _, images in slower.calls[2:]} == {2}, "at least two, for layers that normalise over a batch"
    assert len(slower.calls[2:]) == 4, "one round"


@pytest.mark.usefixtures("two")
def test_a_number_set_by_the_user_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(images: int) -> None:
        raise AssertionError("measured")

    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads.choose(refuse, 8, 1000) == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    assert threads.choose(refuse, 8, 1000) == 1, "there is only one number"


@pytest.mark.usefixtures("two")
def test_choosing_does_not_change_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "SHORT", 0.0)
    tried = set()
    assert threads.choose(lambda images: tried.add(torch.get_num_threads()), 8, 1000) in (1, 2)
    assert (tried, torch.get_num_threads()) == ({1, 2}, 2)


@pytest.mark.parametrize(("text", "number"), [("3", 3), ("4,2", 4), ("", None), ("0", None), ("many", None)])
def test_the_number_in_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, text: str, number: int | None) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert threads.requested_threads() == number


@pytest.mark.parametrize(
    ("cores", "spins"), [(2, threads.SPINS_ON_FEW), (4, threads.SPINS_ON_FEW), (16, threads.SPINS)]
)
def test_waiting_threads_sleep(monkeypatch: pytest.MonkeyPatch, cores: int, spins: str) -> None:
    monkeypatch.setattr(os, "environ", dict[str, str]())
    monkeypatch.setattr(threads, "cores", lambda: cores)
    threads.sleep_while_waiting()
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"]) == ("PASSIVE", spins)


def test_settings_of_the_user_for_waiting_threads_are_preserved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"OMP_WAIT_POLICY": "ACTIVE"})
    threads.sleep_while_waiting()
    assert os.environ == {"OMP_WAIT_POLICY": "ACTIVE"}
    monkeypatch.setattr(os, "environ", {"GOMP_SPINCOUNT": "7"})
    threads.sleep_while_waiting()
    assert os.environ["GOMP_SPINCOUNT"] == "7"


@pytest.mark.usefixtures("two")
def test_torch_and_numpy_use_the_number_within_the_context() -> None:
    def numbers() -> tuple[int, set[int]]:
        blas = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
        return torch.get_num_threads(), set(blas)

    np.ones((2, 2)) @ np.ones((2, 2))
    before = numbers()
    with threads.using_threads(1):
        assert numbers() == (1, {1})
    assert numbers() == before
    with threads.using_threads(None):
        assert numbers() == before
