"""Outputs next to images or in folders of other kinds, and unusable values of `push` and `classes add`."""

from __future__ import annotations

from pathlib import Path

import pytest

from vl2v.api_report import make_report
from vl2v.benchmark.protocol import Grid
from vl2v.benchmark.sweep import Sweep
from vl2v.commands.export import export
from vl2v.commands.new_classes import checked_phrase
from vl2v.errors import ConfigError, HubError, RunError
from vl2v.hub.push import push
from vl2v.locations import StoragePaths
from vl2v.progress import Silent
from vl2v.runs.folder import RunFolder
from vl2v.settings import make_config


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the settings of a run on the images of a folder."""
    (tmp_path / "data").mkdir()
    settings = {"data": {"root": str(tmp_path / "data")}, "teacher": {"spec": "offline:"}}
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.write_config(make_config(None, settings | {"student": {"spec": "offline:"}}))
    return folder.path


def sweep(run: Path, out: Path) -> Sweep:
    settings = RunFolder(run).config().model_dump(mode="json")
    grid = Grid(settings=settings, variants={}, domains=(), targets=())
    return Sweep(grid, out, StoragePaths(run / "cache", run / "store.sqlite"))


def test_results_among_the_images_are_refused(run: Path) -> None:
    images = run.parent / "data"
    for out in (images, images / "new"):
        with pytest.raises(RunError, match="is inside the folder of images"):
            make_report(run, run / "store.sqlite", out=out)
        with pytest.raises(RunError, match="is inside the folder of images"):
            export(run, out=out)
        with pytest.raises(RunError, match="is inside the folder of images"):
            sweep(run, out).open(Silent())
    assert not list(images.iterdir())


def test_a_benchmark_in_the_folder_of_a_run_is_refused(run: Path) -> None:
    before = sorted(run.iterdir())
    with pytest.raises(RunError, match="contains a run"):
        sweep(run, run).open(Silent())
    assert sorted(run.iterdir()) == before


@pytest.mark.parametrize("licence", ["mit\nlicense: other", " ", "---", "x" * 65, "Apache 2.0"])
def test_a_licence_has_to_be_an_identifier(run: Path, licence: str) -> None:
    with pytest.raises(HubError, match="not a licence"):
        push(run, "me/name", licence=licence, dry_run=run / "hub")
    assert not (run / "hub").exists()


@pytest.mark.parametrize("branch", ["../main", "a b", "-f", "a//b", "a/", "caf\u00e9", "x" * 300])
def test_a_branch_has_to_have_a_valid_name(run: Path, branch: str) -> None:
    with pytest.raises(HubError, match="not the name of a branch"):
        push(run, "me/name", revision=branch, dry_run=run / "hub")


@pytest.mark.parametrize("phrase", [" ", "", "grey\0zebra", "\u202eabc", "x" * 1001])
def test_a_phrase_has_to_be_printable(phrase: str) -> None:
    with pytest.raises(ConfigError, match="phrase of zebra cannot be used"):
        checked_phrase(phrase, "zebra")
    assert checked_phrase(" grey \n zebra ", "zebra") == "grey zebra"
