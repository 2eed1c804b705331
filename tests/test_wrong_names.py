"""Wrong names of models, and outputs that cannot be written: found before images are imported, read or timed."""

from __future__ import annotations

import os
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from command_line import Done, run_cli
from test_missing_extras import images
from vl2v.teacher.purchase.store import EmbeddingStore

RIGHT = {"--teacher": "offline:", "--student": "offline:"}
WRONG = [
    ("--teacher", "open_clip:ViT-B-99/openai", "Unknown open_clip model 'ViT-B-99'"),
    ("--teacher", "open_clip:ViT-B-16/nonsense", "Unknown weights 'nonsense' of open_clip:ViT-B-16"),
    ("--teacher", "open_clip:ViT-B-16/gone.pt", "gone.pt is missing"),
    ("--teacher", "file:gone.npz", "no such file"),
    ("--teacher", "jina:", "specifies no model"),
    ("--teacher", "ofline:", "Unknown teacher"),
    ("--student", "timm:resnet999", "Unknown timm model"),
    ("--student", "timm:resnet18.nonsense", "Unknown timm weights"),
    ("--student", "timm:resnet18.a1_in1k@gone.pth", "gone.pth is missing"),
    ("--student", "open_clip:ViT-B-16/nonsense", "Unknown weights"),
    ("--student", "resnet18", "Unknown student"),
]


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder for outputs, in which any work on images fails the test."""
    for work in (
        "vl2v.sources.named.import_records",
        "vl2v.data.listing.read_all",
        "vl2v.training.image_size.Rates.measure",
    ):
        monkeypatch.setattr(work, lambda *_, work=work, **__: pytest.fail(f"{work} was called"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shard(folder: Path) -> Path:
    with tarfile.open(folder / "task.tar", "w") as archive:
        archive.add(images(folder), ".")
    return folder / "task.tar"


def distill(data: Path, to: Path, *more: str | Path, **options: str) -> Done:
    words = [
        word for pair in (RIGHT | {f"--{name}": value for name, value in options.items()}).items() for word in pair
    ]
    places = ("--out", to / "run", "--store", to / "s.sqlite", "--cache", to / "cache")
    return run_cli("distill", data, *words, *places, *more)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("option", "name", "problem"), WRONG)
def test_a_wrong_name_is_found_first(no_work: Path, packed: bool, option: str, name: str, problem: str) -> None:
    data = shard(no_work) if packed else images(no_work)
    done = distill(data, no_work, **{option.strip("-"): name})
    assert done.returncode not in (0, 70), done.stderr
    assert problem in done.stderr
    assert "Traceback" not in done.stderr
    assert not (no_work / "run").exists()


@pytest.mark.skipif(os.name == "nt", reason="paths of Linux")
@pytest.mark.parametrize("option", ["--out", "--store", "--cache"])
def test_an_output_that_cannot_be_written_is_found_first(no_work: Path, option: str) -> None:
    (no_work / "file").touch()
    for data in (images(no_work), shard(no_work)):
        done = distill(data, no_work, option, no_work / "file" / "below")
        assert done.returncode == 13, done.stderr
        assert str(no_work / "file") in done.stderr
        assert option in done.stderr
        assert done.stderr.count("error:") == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
@pytest.mark.parametrize("option", ["--out", "--store", "--cache"])
def test_a_folder_without_write_permission_is_found_first(no_work: Path, option: str) -> None:
    (no_work / "locked").mkdir(mode=0o500)
    done = distill(images(no_work), no_work, option, no_work / "locked" / "new")
    assert done.returncode == 13, done.stderr
    assert "this user has no permission" in done.stderr


def test_a_read_only_store_is_found_before_images_are_read(no_work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(EmbeddingStore(no_work / "s.sqlite")):
        pass
    allowed = os.access

    def access(path: Path | str, mode: int, **more: bool) -> bool:
        return (Path(path).name != "s.sqlite" or mode != os.W_OK) and allowed(path, mode, **more)

    monkeypatch.setattr("os.access", access)
    done = distill(images(no_work), no_work)
    assert done.returncode == 13, done.stderr
    assert "s.sqlite cannot be used" in done.stderr
