"""A run whose images were moved: messages name the missing images, and options state their new path."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tiny_dataset import Bench, Runs, vl2v

from vl2v.commands.moved import locate_images
from vl2v.data.folder import DomainFolder, FaultyDataError
from vl2v.data.scan import FileIndex
from vl2v.data.table import TableListing
from vl2v.errors import RunError
from vl2v.locations import StoragePaths
from vl2v.planning.split import is_dataset_of
from vl2v.progress import Silent
from vl2v.runs.folder import RunFolder


@pytest.fixture
def run(runs: Runs, tmp_path: Path) -> Path:
    """A finished run whose images are no longer at the path in its settings."""
    folder = runs.get().copy(tmp_path / "run")
    set_root(folder, tmp_path / "gone")
    return folder


def set_root(run: Path, root: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["root"] = str(root)
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def root_of(run: Path) -> Path:
    return Path(yaml.safe_load((run / "config.yaml").read_text())["data"]["root"])


COMMANDS = {
    "final": ("final", "RUN", "--out", "OUT"),
    "resume": ("distill", "--out", "RUN", "--resume"),
    "repair": ("repair", "RUN", "NEW", "--quote"),
    "expect": ("expect", "RUN", "NEW"),
    "export": ("export", "RUN"),
    "trust": ("trust", "RUN"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_reports_missing_images_and_the_option_for_their_new_path(
    bench: Bench, run: Path, tmp_path: Path, name: str
) -> None:
    paths = {"RUN": str(run), "OUT": str(tmp_path / "out"), "NEW": str(bench.data / "rose")}
    done = vl2v(*(paths.get(word, word) for word in COMMANDS[name]))
    message = " ".join(done.stderr.split())
    assert str(tmp_path / "gone") in message
    assert "have moved" in message
    assert "--resume DATA" in message if name == "resume" else "--data DATA" in message
    assert (done.returncode == 0) == (name == "trust")  # it works without the images, too, and warns


def test_the_new_path_is_recorded(bench: Bench, run: Path) -> None:
    done = vl2v("trust", str(run), "--data", str(bench.data))
    assert (done.returncode, "moved" in done.stderr) == (0, False)
    assert root_of(run) == bench.data
    again = vl2v("trust", str(run))
    assert (again.returncode, "moved" in again.stderr) == (0, False)


def test_a_resumed_run_uses_the_new_path(bench: Bench, run: Path) -> None:
    done = vl2v("distill", str(bench.data), "--out", str(run), "--resume", "--no-report", "--json")
    assert done.returncode == 0, done.stderr
    assert root_of(run) == bench.data


def test_other_images_are_refused_and_nothing_is_recorded(bench: Bench, run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(bench.data, tmp_path / "other"))
    for file in (other / "ink" / "bar").iterdir():
        file.write_bytes((other / "rose" / "blank" / file.name).read_bytes())
    with pytest.raises(RunError, match=r"does not contain the images(.|\n)*with \d\d% of its training images"):
        locate_images(RunFolder(run), other)
    (other / "neon").rename(tmp_path / "neon")
    with pytest.raises(RunError, match="found: 60 images"):
        locate_images(RunFolder(run), other)
    with pytest.raises(RunError, match="no such folder"):
        locate_images(RunFolder(run), tmp_path / "nowhere")
    assert root_of(run) == tmp_path / "gone"


def test_the_images_of_an_unfinished_run_are_checked_too(bench: Bench, run: Path, tmp_path: Path) -> None:
    folder = RunFolder(run)
    made = json.loads((folder.student / "student.json").read_text())["provenance"]["data"]
    shutil.rmtree(folder.student)
    folder.work.mkdir(exist_ok=True)
    folder.data_file.write_text(json.dumps(made | {"digest": "", "training_sample": ["0" * 16]}))
    with pytest.raises(RunError, match="with 0% of its training images"):
        locate_images(folder, bench.data)
    folder.data_file.write_text(json.dumps(made))
    assert locate_images(folder, bench.data).data.root == bench.data


def test_a_folder_without_domains_may_be_renamed(bench: Bench, tmp_path: Path) -> None:
    with closing(FileIndex(tmp_path / "files.sqlite")) as index:
        dataset = DomainFolder(bench.data / "ink").scan(index=index, progress=Silent())
    made = {"digest": dataset.digest(), "domains": ["ink"]}
    assert is_dataset_of(replace(dataset, domains=("renamed",)), made)
    assert not is_dataset_of(replace(dataset, domains=("renamed",), paths=dataset.paths[::-1]), made)


def test_a_table_whose_images_have_moved_can_be_replaced(tmp_path: Path) -> None:
    table = tmp_path / "photos.csv"
    table.write_text("image,label\na.png,ball\nb.png,box\n")
    with pytest.raises(FaultyDataError, match=r"none of the 2 files exists(.|\n)*--data, or with --resume DATA"):
        TableListing(table, columns={}, as_found=True).scan()
    with pytest.raises(FaultyDataError, match="relative to the table's folder") as caught:
        TableListing(table, columns={}).scan()
    assert "--data" not in str(caught.value)


@pytest.mark.parametrize("key", ["unlabelled", "drop"])
def test_a_resumed_run_accepts_no_additional_data(bench: Bench, runs: Runs, tmp_path: Path, key: str) -> None:
    folder = runs.get().copy(tmp_path / "run")
    before = (folder / "config.yaml").read_text()
    done = vl2v("distill", "--out", folder, "--resume", f"--{key}", bench.data)
    assert f"has no data.{key}" in done.stderr
    assert (folder / "config.yaml").read_text() == before


def test_missing_parts_of_the_data_are_named(bench: Bench, run: Path, tmp_path: Path) -> None:
    set_root(run, bench.data)
    set_data(run, drop=tmp_path / "suspects.csv")
    with pytest.raises(RunError, match=r"suspects.csv \(data.drop\)(.|\n)*--drop PATH"):
        locate_images(RunFolder(run), None, StoragePaths())
    locate_images(RunFolder(run), None, StoragePaths(), needed=("root",))
    done = vl2v("export", run)
    assert f"vl2v trust {run} --drop PATH" in done.stderr


def set_data(run: Path, **values: Path) -> None:
    config = RunFolder(run).written_config()
    RunFolder(run).write_config(config.model_copy(update={"data": config.data.model_copy(update=values)}))


@pytest.fixture
def extended(bench: Bench, tmp_path: Path) -> Path:
    """A run with images without labels and a list of dropped images, all of which have moved."""
    shutil.copytree(bench.data / "rose" / "bar", tmp_path / "more" / "rose" / "bar")  # the paths in the teacher file
    (tmp_path / "drop.csv").write_text("path\nink/bar/0.png\n")
    more = ["--unlabelled", str(tmp_path / "more"), "--drop", str(tmp_path / "drop.csv")]
    done = vl2v(
        *bench.with_separate_storage(tmp_path).distill(tmp_path / "run", *more), "--align-steps", "2", "--steps", "2"
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "more").rename(tmp_path / "new")
    (tmp_path / "drop.csv").rename(tmp_path / "new.csv")
    return tmp_path / "run"


@pytest.mark.slow
def test_new_paths_of_unlabelled_and_dropped_images_are_checked(bench: Bench, extended: Path, tmp_path: Path) -> None:
    resume: list[str | Path] = ["distill", "--out", extended, "--resume", "--no-report", "-q"]
    done = vl2v(*resume)
    assert "--unlabelled PATH" in done.stderr
    done = vl2v(*resume, "--unlabelled", tmp_path / "new")
    assert "--drop PATH" in done.stderr
    options: list[str | Path] = ["--unlabelled", tmp_path / "new", "--drop", tmp_path / "new.csv"]
    other = vl2v(*resume, "--unlabelled", bench.data / "rose" / "blank", *options[2:])
    assert "does not contain the images without labels" in other.stderr
    assert "(data.unlabelled)" in vl2v("final", extended, "--out", tmp_path / "final").stderr
    done = vl2v("trust", extended, *options)
    assert done.returncode == 0, done.stderr
    data = RunFolder(extended).written_config().data
    assert (data.unlabelled, data.drop) == (tmp_path / "new", tmp_path / "new.csv")
    done = vl2v(*resume)
    assert done.returncode == 0, done.stderr
