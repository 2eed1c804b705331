"""Every command accepts the same kinds of data: folders, tables and datasets of other tools."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import folder_of, put
from test_sources import CLASSES, KINDS

import vl2v
from command_line import run_cli
from vl2v.commands import suspects
from vl2v.data.folder import FaultyDataError, unlabelled_images
from vl2v.errors import ConfigError, DataError
from vl2v.locations import StoragePaths
from vl2v.planning.prepare import list_folder

Maker = Callable[[Path, Path], str]


def table(root: Path, to: Path) -> str:
    """Write a plain table whose column of images has an unusual name."""
    with (to / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "species", "camera"])
        writer.writerows([path, path.parent.name, path.parent.parent.name] for path in sorted(root.rglob("*.png")))
    return str(to / "t.csv")


MAKERS: dict[str, Maker] = {"table": table} | {kind: maker for kind, (maker, _) in KINDS.items()}
kinds = pytest.mark.parametrize("kind", MAKERS)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "photos", classes=tuple(CLASSES), each=5)


@pytest.fixture
def teacher(images: Path, tmp_path: Path) -> str:
    """A file teacher whose embeddings of the images and the prompt of a class are similar."""
    files = sorted(images.rglob("*.png"))
    embeddings = np.random.default_rng(0).normal(scale=0.01, size=(len(files), 4)).astype(np.float32)
    embeddings[np.arange(len(files)), [CLASSES.index(path.parent.name) for path in files]] += 1
    np.savez(
        tmp_path / "teacher.npz",
        sha256=np.array([hashlib.sha256(path.read_bytes()).hexdigest() for path in files]),
        embeddings=embeddings,
        texts=np.array([f"a photo of a {name}" for name in CLASSES]),
        text_embeddings=np.eye(2, 4, dtype=np.float32),
    )
    return f"file:{tmp_path / 'teacher.npz'}"


@pytest.fixture
def storage(tmp_path: Path) -> StoragePaths:
    return StoragePaths(cache=tmp_path / "cache", store=tmp_path / "here" / "store.sqlite")


def storage_options(storage: StoragePaths) -> tuple[str, str, str, str]:
    return "--cache", str(storage.cache), "--store", str(storage.store)


def data_of(kind: str, images: Path, to: Path) -> str:
    to.mkdir()
    return MAKERS[kind](images, to)


@kinds
def test_teacher_check_reads_every_kind_of_data(
    kind: str, images: Path, teacher: str, storage: StoragePaths, tmp_path: Path
) -> None:
    data = data_of(kind, images, tmp_path / "other")
    done = run_cli("teacher", "check", teacher, "--data", data, "--images", "8", *storage_options(storage))
    assert done.returncode == 0, done.stderr
    assert "100" in done.stdout


@kinds
def test_benchmark_run_reads_every_kind_of_data(
    kind: str, images: Path, teacher: str, storage: StoragePaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vl2v.benchmark.sweep import Sweep

    grids: list[Any] = []

    def opened(sweep: Sweep, *_: object, **__: object) -> None:
        grids.append(sweep.grid)
        raise ConfigError("Opened.", expected="", found="", next_step="")

    monkeypatch.setattr(Sweep, "open", opened)
    data = data_of(kind, images, tmp_path / "other")
    words = ("--data", data, "--teacher", teacher, "--student", "offline:", "--out", str(tmp_path / "grid"))
    done = run_cli("benchmark", "run", *words, "--methods", "erm", *storage_options(storage))
    assert "Opened." in done.stderr, done.stderr
    assert list(grids[0].targets) == ["art", "photo"]
    assert Path(grids[0].settings["data"]["root"]).is_file()


@kinds
def test_unlabelled_images_can_be_of_every_kind_of_data(
    kind: str, images: Path, teacher: str, storage: StoragePaths, tmp_path: Path
) -> None:
    data = data_of(kind, images, tmp_path / "other")
    few = folder_of(tmp_path / "few", classes=tuple(CLASSES), each=3)  # these images are also in the other sources
    settings = {"data": {"unlabelled": data}}
    quote = vl2v.quote(few, teacher, settings=settings, storage=storage)
    assert quote.images["unlabelled"] + quote.images["training"] >= 20
    assert quote.contents is not None


@kinds
def test_label_reads_every_kind_of_data(
    kind: str, images: Path, teacher: str, storage: StoragePaths, tmp_path: Path
) -> None:
    data = data_of(kind, images, tmp_path / "other")
    out = tmp_path / "labels.csv"
    result = vl2v.label(data, teacher, CLASSES, out, check=data, error=0.3, storage=storage)
    assert len(result.predictions) == 20
    assert np.bincount(result.predictions).tolist() == [10, 10]


@kinds
def test_suspects_reads_every_kind_of_data(
    kind: str, images: Path, teacher: str, storage: StoragePaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dataset(config: Any, *_: object) -> None:
        listing = list_folder(config.data)
        raise ConfigError(f"{len(listing.paths)} images.", expected="", found="", next_step="")

    monkeypatch.setattr(suspects, "find_suspects", dataset)
    data = data_of(kind, images, tmp_path / "other")
    done = run_cli("data", "suspects", data, "--teacher", teacher, "--student", "offline:", *storage_options(storage))
    assert "20 images." in done.stderr, done.stderr


COMMANDS: dict[str, tuple[str, ...]] = {
    "teacher check": ("teacher", "check", "TEACHER", "--data", "DATA"),
    "benchmark run": (
        "benchmark",
        "run",
        "--teacher",
        "TEACHER",
        "--student",
        "offline:",
        "--out",
        "o",
        "--data",
        "DATA",
    ),
    "label": ("label", "DATA", "--teacher", "TEACHER", "--classes", "cat,dog"),
    "suspects": ("data", "suspects", "DATA", "--teacher", "TEACHER", "--student", "offline:"),
    "quote": ("quote", "DATA", "--teacher", "TEACHER"),
    "unlabelled": ("quote", "IMAGES", "--teacher", "TEACHER", "--unlabelled", "DATA"),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("s3://bucket/photos", "scheme s3"),
        ("nowhere.csv", "nowhere.csv is not a file"),
        ("empty.csv", "no image"),
        ("columns.csv", "--image"),
    ],
)
def test_unreadable_data_are_refused_with_a_next_step(
    words: tuple[str, ...],
    data: str,
    message: str,
    images: Path,
    teacher: str,
    storage: StoragePaths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.csv").write_text("path,label\n")
    Path("columns.csv").write_text("a,b\n1.png,cat\n")
    there = {"DATA": data, "TEACHER": teacher, "IMAGES": str(images)}
    done = run_cli(*(there.get(word, word) for word in words), *storage_options(storage))
    assert done.returncode in (2, 3), done.stderr
    assert message in done.stderr.replace("\n", " "), done.stderr
    assert "expected" in done.stderr
    assert "next" in done.stderr


def test_the_column_of_a_table_without_labels_can_be_stated(tmp_path: Path) -> None:
    for i in range(3):
        put(tmp_path / f"{i}.png", i)
    (tmp_path / "t.csv").write_text("photo,camera\n0.png,a\n1.png,b\n0.png,a\n")
    with pytest.raises(ConfigError, match="--image"):
        unlabelled_images(tmp_path / "t.csv")
    dataset = unlabelled_images(tmp_path / "t.csv", image="photo")
    assert (dataset.paths, dataset.labels.tolist()) == (["0.png", "1.png"], [-1, -1])
    (tmp_path / "t.csv").write_text("path\n0.png\n2.png\n")
    assert unlabelled_images(tmp_path / "t.csv", image="photo").paths == ["0.png", "2.png"]


def test_faults_of_a_table_without_labels_are_reported(tmp_path: Path) -> None:
    put(tmp_path / "0.png", 0)
    (tmp_path / "t.csv").write_text("path\n0.png\nftp://host/1.png\n2.png\n")
    with pytest.raises(FaultyDataError, match=r"(?s)row 3.*an address.*2\.png"):
        unlabelled_images(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("path\n0.png\n2.png\n")
    assert unlabelled_images(tmp_path / "t.csv", skip_bad=True).paths == ["0.png"]
    with pytest.raises(DataError, match="no such file"):
        unlabelled_images(tmp_path / "nowhere")
