"""A free local teacher is queried by workers of Ray: one cluster for the whole file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from logged_teacher import Work, install

from vl2v.cluster.connection import ClusterUse, Share, connected
from vl2v.cluster.pool import cluster_workers
from vl2v.cluster.worker import Driver
from vl2v.errors import ConfigError, DataError, MissingExtraError, RunError, TeacherError
from vl2v.progress import Silent
from vl2v.teacher.purchase.image_set import ImageSet
from vl2v.teacher.registry import TEACHERS

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("ray")]
TESTS = Path(__file__).resolve().parents[1]
LOCAL = ClusterUse("local")


@pytest.fixture(scope="module", autouse=True)
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster for two workers that find the teacher."""
    site, loaded = tmp_path_factory.mktemp("logged") / "site", dict(TEACHERS._loaded)
    install(site)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
        with connected("local", 2):
            yield site
    TEACHERS._loaded.clear()
    TEACHERS._loaded.update(loaded)
    sys.modules.pop("logged", None)


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def test_two_workers_embed_each_image_once_in_the_batches_of_one_process(tmp_path: Path) -> None:
    work = Work.made(tmp_path / "work", seconds=600)

    def continue_purchase() -> None:
        wait_for(lambda: len(work.batches("begun")) == 2)
        work.take(0)

    threading.Thread(target=continue_purchase, daemon=True).start()
    with cluster_workers(LOCAL, Silent()):
        assert work.buy(tmp_path / "cluster.sqlite") == 26
        assert work.buy(tmp_path / "cluster.sqlite") == 0
    assert len(work.workers()) == 2
    assert len(work.times_embedded()) == 26
    assert set(work.times_embedded().values()) == {1}
    local = Work.made(tmp_path / "local")
    local.buy(tmp_path / "here.sqlite")
    assert local.workers() == set()
    assert work.saved(tmp_path / "cluster.sqlite") == local.saved(tmp_path / "here.sqlite")
    assert work.saved(tmp_path / "cluster.sqlite")[1] == 26


def test_a_killed_worker_is_replaced_and_only_its_batch_repeated(tmp_path: Path) -> None:
    work, killed = Work.made(tmp_path / "work", seconds=600), list[Path]()

    def kill() -> None:
        wait_for(lambda: len(work.batches("begun")) == 2)
        killed.append(work.batches("begun")[0])
        os.kill(int(killed[0].name.partition("-")[0]), signal.SIGKILL)
        wait_for(lambda: len(work.workers()) == 3)
        work.take(0)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with cluster_workers(LOCAL, Silent()):
        assert work.buy(tmp_path / "store.sqlite") == 26
    killer.join(1)
    assert work.batches("begun") == killed, "the batch of the killed worker did not end"
    assert len(work.times_embedded()) == 26
    assert set(work.times_embedded().values()) == {1}
    assert len(work.workers()) == 3, "another worker took the place of the killed one"
    local = Work.made(tmp_path / "local")
    local.buy(tmp_path / "here.sqlite")
    assert work.saved(tmp_path / "store.sqlite") == local.saved(tmp_path / "here.sqlite")


class Meanwhile(Silent):
    """After the first batch, another purchase into the same store."""

    def __init__(self, other: Callable[[], int]) -> None:
        self.other, self.bought = other, list[int]()

    @contextmanager
    def stage(self, title: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
        def advance(steps: int) -> None:
            if not self.bought:  # in a thread, which has no workers
                thread = threading.Thread(target=lambda: self.bought.append(self.other()))
                thread.start()
                thread.join()

        yield advance


def test_embeddings_that_another_process_bought_meanwhile_are_not_saved_again(tmp_path: Path) -> None:
    work, store = Work.made(tmp_path / "work", seconds=0.1), tmp_path / "store.sqlite"
    meanwhile = Meanwhile(lambda: work.buy(store))
    with cluster_workers(LOCAL, Silent()):
        assert work.buy(store, meanwhile) == 4
    assert meanwhile.bought == [22]
    assert work.saved(store)[1] == 26


DRIVER = """
import sys
from pathlib import Path
from logged_teacher import Work
from vl2v.cluster.connection import ClusterUse
from vl2v.cluster.pool import cluster_workers
from vl2v.progress import Silent
with cluster_workers(ClusterUse("local"), Silent()):
    Work(Path(sys.argv[1])).buy(Path(sys.argv[2]))
"""


def test_images_that_a_killed_driver_saved_are_not_embedded_again(tmp_path: Path, two_workers: Path) -> None:
    work, store = Work.made(tmp_path / "work", seconds=0.5), tmp_path / "store.sqlite"

    def saved() -> set[str]:
        if not store.exists():
            return set()
        with sqlite3.connect(store) as db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'images'").fetchone():
                return set()
            return {row[0].hex() for row in db.execute("SELECT digest FROM images")}

    folders = [str(two_workers), str(TESTS), str(TESTS / "cluster"), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    command = [sys.executable, "-c", DRIVER, str(work.root), str(store)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as driver:
        wait_for(lambda: len(saved()) >= 8 or driver.poll() is not None)
        assert driver.poll() is None, driver.stderr and driver.stderr.read()
        work.take(600)
        driver.kill()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in work.workers()))
    work.take(0)
    before = saved()
    assert 8 <= len(before) < 26
    with cluster_workers(LOCAL, Silent()):
        assert work.buy(store) == 26 - len(before)
    assert len(saved()) == 26
    assert {name for name, times in work.times_embedded().items() if times > 1}.isdisjoint(before)
    assert work.saved(store)[1] == 26


def test_batches_at_which_every_worker_dies_end_the_purchase(tmp_path: Path) -> None:
    work = Work.made(tmp_path / "work", images=3)
    (work.root / "log" / "deadly").touch()
    with cluster_workers(LOCAL, Silent()), pytest.raises(RunError, match="4 workers died at the same images"):
        work.buy(tmp_path / "store.sqlite")
    assert len(work.batches("begun")) == 4


def test_a_machine_without_the_images_or_with_another_teacher_is_named(tmp_path: Path) -> None:
    import logged  # type: ignore[import-not-found]

    work = Work.made(tmp_path / "work", images=3)
    scanned = ImageSet.of(work.digests, work.files.__getitem__, "training")
    only = ImageSet.of(work.digests, lambda i: logged.Only(work.files[i], os.getpid()), "training")
    with cluster_workers(LOCAL, Silent()):
        with pytest.raises(RunError, match=r"does not see the images(.|\n)*on a disk that all machines share"):
            work.buy(tmp_path / "store.sqlite", image_set=only)
        (work.root / "log" / "differs").touch()
        with pytest.raises(
            TeacherError, match=r"has another version of logged:(.|\n)*revision here(.|\n)*revision cpu"
        ):
            work.buy(tmp_path / "store.sqlite")
        (work.root / "log" / "differs").unlink()
        (work.root / "images" / "00.bin").write_bytes(b"changed")
        with pytest.raises(DataError, match=r"00\.bin changed"):
            work.buy(tmp_path / "store.sqlite", image_set=scanned)
    assert work.batches("done") == []


def test_workers_have_the_requested_size(tmp_path: Path) -> None:
    work = Work.made(tmp_path / "work", images=8)
    with cluster_workers(ClusterUse("local", Share(2)), Silent()):
        work.buy(tmp_path / "store.sqlite")
    assert len(work.workers()) == 1
    with cluster_workers(ClusterUse("local", Share(64)), Silent()), pytest.raises(ConfigError, match="64 CPUs and 0 G"):
        work.buy(tmp_path / "another.sqlite")
    with pytest.raises(ConfigError, match="--cpus-per-worker"):
        ClusterUse("local", Share(0))


def test_another_version_of_vl2v_is_refused() -> None:
    Driver().check()
    with pytest.raises(RunError, match=r"another version of vl2v(.|\n)*0\.0\.1"):
        Driver(version="0.0.1").check()


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"vl2v\[ray\]"), cluster_workers(LOCAL, Silent()):
        pass
