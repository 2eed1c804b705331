"""Workers of Ray read the images of a dataset, and the run is that of one process. One cluster for the whole file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_dataset import TINY, Bench, draw

import vl2v
from recorders import NoteRecorder
from vl2v.cluster.connection import ClusterUse, connected
from vl2v.cluster.pool import WorkerPool, cluster_workers
from vl2v.data import scan
from vl2v.data.pixels import PixelCache
from vl2v.data.scan import FileIndex, read_all
from vl2v.errors import ConfigError, RunError
from vl2v.locations import StoragePaths
from vl2v.progress import Silent

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("ray")]
LOCAL = ClusterUse("local")
Scanned = tuple[bytes, list[scan.Fault], dict[bytes, bytes], list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def two_workers() -> Iterator[None]:
    with connected("local", 2):
        yield


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Path, list[str]]:
    """40 images with a copy, a broken file and a missing one."""
    root, generator = tmp_path / "photos", np.random.default_rng(0)
    for i in range(40):
        draw(root / f"{i:02}.png", ("blank", "bar")[i % 2], ("white", "black"), generator)
    (root / "copy.png").write_bytes((root / "07.png").read_bytes())
    (root / "broken.png").write_bytes((root / "08.png").read_bytes()[:60])
    return root, [*sorted(file.name for file in root.iterdir()), "missing.png"]


def scanned(photos: tuple[Path, list[str]], cache: Path) -> Scanned:
    """Digests, faults, cached pixels and index of a scan."""
    root, names = photos
    with closing(FileIndex(cache / "files.sqlite")) as index, closing(PixelCache(cache, 32)) as pixels:
        digests, faults = read_all(root, names, index=index, cache=pixels)
        squares = {digest: pixels.map()[slot].tobytes() for digest, slot in pixels.all_slots().items()}
    with closing(sqlite3.connect(cache / "files.sqlite")) as db:
        return digests.tobytes(), faults, squares, db.execute("SELECT * FROM files ORDER BY path").fetchall()


def distilled(bench: Bench, root: Path, teacher: str, ray: str | None) -> tuple[bytes, bytes, list[str]]:
    """Student, embeddings and notes of a short run with an empty cache and store."""
    storage, notes = StoragePaths(root / "cache", root / "store.sqlite"), NoteRecorder()
    settings = TINY | {"recipe": "paper", "distill": {"steps": 6}, "data": {"held_out": ["rose"]}}
    vl2v.distill(
        bench.data, teacher, bench.student, out=root / "run", storage=storage, progress=notes, settings=settings,
        report=False, accept_teacher=True, ray=ray,
    )  # fmt: skip
    with closing(sqlite3.connect(storage.store)) as db:
        stored = db.execute("SELECT digest, vector FROM images ORDER BY digest").fetchall()
    student = (root / "run" / "student" / "model.safetensors").read_bytes()
    return student, b"".join(vector for _, vector in stored), notes.lines


def test_a_run_with_an_address_without_a_cluster_or_an_unnamed_teacher_is_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        distilled(bench, tmp_path, "offline:", "127.0.0.1:1")
    assert not (tmp_path / "run").exists()
    teacher = vl2v.open_teacher("offline:")
    with pytest.raises(ConfigError, match="cannot open this teacher"):
        distilled(bench, tmp_path, teacher, "local")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("two_workers")
def test_a_scan_on_workers_equals_that_of_one_process(
    photos: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = scanned(photos, tmp_path / "local")
    assert [fault.where for fault in local[1]] == ["broken.png", "missing.png"]
    assert (len(local[2]), len(local[3])) == (40, 42)
    read: list[list[str]] = []
    mapped = WorkerPool.map

    def counted(self: WorkerPool, function: Any, items: Any, *rest: Any) -> Any:
        for item, *result in mapped(self, function, items, *rest):
            read.append(item[1])
            yield item, *result

    monkeypatch.setattr(WorkerPool, "map", counted)
    with cluster_workers(LOCAL, Silent()):
        assert scanned(photos, tmp_path / "cluster") == local
        assert sorted(len(part) for part in read) == [11, 16, 16], "each file once"
        read.clear()
        draw(photos[0] / "03.png", "bar", ("lime", "black"), np.random.default_rng(1))
        scanned(photos, tmp_path / "cluster")
    assert sorted(Path(key).name for part in read for key in part) == ["03.png", "missing.png"], "what has changed"


def test_a_machine_that_cannot_read_an_image_is_named(
    photos: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Far:
        def map(self, function: Any, following: Any, *rest: Any) -> Iterator[Any]:
            for rows, keys in iter(following, None):
                missing = scan._Checked(b"", "cannot be read (No such file or directory)")
                yield (rows, keys), [missing] * len(keys), "far"

    monkeypatch.setattr(scan, "current_pool", Far)
    with pytest.raises(RunError, match=r"The machine far does not see the images(.|\n)*00\.png(.|\n)*No such file"):
        scanned((photos[0], ["00.png"]), tmp_path / "cache")
    assert [f.where for f in scanned((photos[0], ["missing.png"]), tmp_path / "cache")[1]] == ["missing.png"]


@pytest.mark.usefixtures("two_workers")
def test_the_student_of_a_run_on_a_cluster_is_that_of_one_process(bench: Bench, tmp_path: Path) -> None:
    local = distilled(bench, tmp_path / "local", "offline:", None)
    there = distilled(bench, tmp_path / "there", "offline:", "local")
    assert there[:2] == local[:2]
    assert len(local[1]) == 90 * 384 * 4
    notes = distilled(bench, tmp_path / "file", bench.teacher, "local")[2]
    assert any("is queried by this process; the workers of --ray only read the images" in note for note in notes)
