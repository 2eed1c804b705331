"""Loading processes that are spawned, as on macOS and Windows, instead of forked."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_dataset import bench  # noqa: F401 - a fixture

from vl2v.data.augment import Augmentation, AugmentSettings
from vl2v.data.batches import AugmentedPixels, Draw, _worker_gone, augmented_batches, interruptible
from vl2v.errors import ConfigError, TrainingError
from vl2v.faults import explaining

SIZE, IMAGES = 16, 2000


@pytest.fixture
def dataset(tmp_path: Path) -> AugmentedPixels:
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, SIZE, SIZE, 3), np.uint8)
    (tmp_path / "pixels.u8").write_bytes(pixels.tobytes())
    np.save(tmp_path / "slots.npy", np.arange(IMAGES))
    mapped = np.memmap(tmp_path / "pixels.u8", np.uint8, "r", shape=pixels.shape)
    slots = np.load(tmp_path / "slots.npy", mmap_mode="r")
    return AugmentedPixels(mapped, slots, Augmentation(SIZE, AugmentSettings()))


def test_a_worker_receives_the_names_of_the_files_instead_of_the_images(dataset: AugmentedPixels) -> None:
    sent = pickle.dumps(dataset)
    assert len(sent) < 4096
    there = pickle.loads(sent)  # noqa: S301 - our own
    assert isinstance(there.pixels, np.memmap)
    for key in ((0, 1), (IMAGES - 1, 7)):
        assert (there[key][0] == dataset[key][0]).all()


def test_a_part_of_a_map_and_an_array_are_pickled_by_value(dataset: AugmentedPixels) -> None:
    part = AugmentedPixels(dataset.pixels[5:8], np.arange(3), dataset.augmentation)
    there = pickle.loads(pickle.dumps(part))  # noqa: S301 - our own
    assert np.array_equal(there.pixels, dataset.pixels[5:8])


@pytest.mark.slow
def test_spawned_workers_give_the_same_batches(dataset: AugmentedPixels) -> None:
    draws = [Draw(np.array([1, 5], np.int64), np.array([3, 4], np.int64))] * 3
    expected = [pixels for pixels, _ in augmented_batches(dataset, draws)]
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        there = [pixels for pixels, _ in augmented_batches(dataset, draws, workers=1)]
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert all((a == b).all() for a, b in zip(expected, there, strict=True))


def hang(number: signal.Signals) -> None:
    with interruptible():
        os.kill(os.getpid(), number)
        time.sleep(5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_that_hangs_can_be_stopped(number: signal.Signals) -> None:
    noted: list[int] = []
    before = signal.signal(number, lambda n, _: noted.append(n))  # as in a run, which saves its state first
    try:
        with pytest.raises(KeyboardInterrupt):
            hang(number)
        os.kill(os.getpid(), number)
        assert noted == [number], "afterwards as before"
    finally:
        signal.signal(number, before)


def test_a_child_that_imports_the_script_names_the_missing_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    @explaining
    def distill() -> None:
        pytest.fail("it began")

    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(ConfigError, match='if __name__ == "__main__":'):
        distill()


def test_a_worker_that_ended_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for method, guarded in (("spawn", True), ("fork", False)):
        monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none, method=method: method)
        error = _worker_gone(RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"))
        assert isinstance(error, TrainingError)
        assert "--workers 0" in str(error)
        assert ("__main__" in str(error)) == guarded
    assert _worker_gone(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


SCRIPT = """
import multiprocessing, pathlib, sys
from tiny_dataset import DOMAINS
import vl2v

def work():
    multiprocessing.set_start_method("spawn", force=True)
    bench = pathlib.Path(sys.argv[1])
    small = {{"student": {{"size": 32}}, "align": {{"steps": 2}}, "distill": {{"steps": 2, "checkpoint_every": 1}}}}
    small |= {{"batch_per_domain": 2, "workers": 1, "device": "cpu"}}
    storage = vl2v.locations.StoragePaths(bench / "cache", bench / "vectors.sqlite")
    student = f"timm:test_resnet@{{bench / 'student.safetensors'}}"
    vl2v.distill(bench / "data", f"file:{{bench / 'teacher.npz'}}", student, out=bench / sys.argv[2], held_out=["rose"],
        settings=small, report=False, storage=storage)
    print("finished")

{call}
"""


@pytest.mark.system
@pytest.mark.parametrize("guard", [True, False])
def test_a_script_runs_with_the_guard_and_fails_without(bench: object, tmp_path: Path, guard: bool) -> None:
    script = tmp_path / "script.py"
    call = 'if __name__ == "__main__":\n    work()' if guard else "work()"
    script.write_text("import vl2v.locations\n" + SCRIPT.format(call=call))
    root: Path = bench.root  # type: ignore[attr-defined]
    done = subprocess.run(
        [sys.executable, script, root, f"guard-{guard}"],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    if guard:
        assert "finished" in done.stdout, done.stderr
    else:
        assert done.returncode != 0
        assert "TrainingError" in done.stderr
        assert 'if __name__ == "__main__":' in done.stderr.rpartition("TrainingError")[2]
