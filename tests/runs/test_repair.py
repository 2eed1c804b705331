"""`vl2v repair` adapts a student to a new site with a few queries and does not change the earlier one."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from tiny_dataset import TINY, Bench
from typer.testing import CliRunner

import vl2v
from once import Once
from vl2v.cli import app
from vl2v.cli.repair import _text
from vl2v.commands.moved import TRAINING, NewLocations, locate_images
from vl2v.commands.new_site import at_new_location, ensure_new_images, new_digests
from vl2v.commands.repair import Repair, repair
from vl2v.commands.repair_plan import RepairPlan, plan_repair
from vl2v.config import RunConfig
from vl2v.errors import BudgetError, ConfigError, DataError, RunError, Vl2vError
from vl2v.evaluation.evaluation import DomainScore, Evaluation
from vl2v.locations import StoragePaths
from vl2v.progress import Silent
from vl2v.runs.folder import CHECKED, TRAINED, RunFolder
from vl2v.teacher.purchase.ledger import Ledger
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.validation import parse

SMALL = TINY | {
    "distill": {"steps": 4, "checkpoint_every": 2, "learning_rate": 1e-3, "minutes": 0},
    "teacher": {"price_per_1000_images": "1", "zero_shot": False},
}
REPAIRED = {"data": {"root": "x"}, "teacher": {"spec": "file:x.npz"}, "student": {"spec": "timm:x"}}
BRIEF = {"distill": {"steps": 3, "warmup_steps": 1, "checkpoint_every": 2}}


@pytest.fixture(scope="module")
def deployed(bench: Bench, once: Once) -> Path:
    """A folder with a run `first` on two domains, its cache and its store. The third domain is the new site."""

    def make(folder: Path) -> None:
        storage = StoragePaths(folder / "cache", folder / "vectors.sqlite")
        vl2v.distill(
            bench.data, bench.teacher, bench.student, out=folder / "first", held_out=("rose",), storage=storage,
            report=False, budget="1", settings=SMALL,
        )  # fmt: skip

    return once("repair-first", make)


@pytest.fixture
def project(deployed: Path, tmp_path: Path) -> Path:
    """A copy of the run with a separate store."""
    shutil.copytree(deployed / "first", tmp_path / "first")
    shutil.copy(deployed / "vectors.sqlite", tmp_path)
    return tmp_path


def storage(project: Path, deployed: Path) -> StoragePaths:
    return StoragePaths(deployed / "cache", project / "vectors.sqlite")


def bytes_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows(table: Path) -> list[str]:
    with table.open(encoding="utf-8", newline="") as file:
        return [row["image"] for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_new_run_starts_from_the_student_and_pays_for_the_selected_images_only(
    bench: Bench, project: Path, deployed: Path
) -> None:
    before = bytes_of(project / "first")
    flags = ["--queries", "10", "--budget", "0.01", "--no-report", "--json", "--quiet"]
    flags += ["--cache", str(deployed / "cache"), "--store", str(project / "vectors.sqlite")]
    flags += ["--set", "distill.steps=3", "--set", "distill.warmup_steps=1"]
    command = ["repair", str(project / "first"), str(bench.data / "rose")]
    quoted = CliRunner().invoke(app, [*command, *flags, "--quote"])
    assert json.loads(quoted.stdout)["cost"] == "0.01"
    assert not (project / "first-repaired").exists()
    done = CliRunner().invoke(app, [*command, *flags])
    assert done.exit_code == 0, done.output
    result, out = json.loads(done.stdout), project / "first-repaired"
    assert (result["image_queries"], result["spent"], result["trained"], result["checked"]) == (10, "0.01", 8, 2)
    assert bytes_of(project / "first") == before
    trained, checked = rows(out / "repair-trained.csv"), rows(out / "repair-checked.csv")
    assert (len(trained), len(checked), len({*trained, *checked})) == (8, 2, 10)
    settings = yaml.safe_load((out / "config.yaml").read_text())
    assert settings["repair"]["run"] == str((project / "first").resolve())
    assert settings["align"]["solver"] == "ridge"
    assert settings["vl2v"]["kl_weight"] == 0.1, "as in any run with images without labels"
    assert settings["vl2v"]["pseudo_labels"] == 1, "as in the first run"
    assert settings["distill"]["steps"] == 3
    earlier = json.loads((project / "first" / "evaluation.json").read_text())
    domains = {row["domain"]: row["student"] for row in earlier["domains"] if row["role"] == "in-domain"}
    assert {domain: row["old"] for domain, row in result["validation"]["domains"].items()} == domains
    assert json.loads((out / "repair.json").read_text())["result"] == result
    again = CliRunner().invoke(app, [*command, *flags])
    assert json.loads(again.stdout) == result, "a finished repair is reported again, and nothing is bought"
    ledger = Ledger(EmbeddingStore(project / "vectors.sqlite"))
    assert [entry.queries for entry in ledger.entries(str(out.resolve()))] in ([2, 8], [10])


@pytest.mark.slow
def test_an_interrupted_repair_continues_with_the_images_that_were_selected(
    bench: Bench, project: Path, deployed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned() -> RepairPlan:
        return plan_repair(
            project / "first", bench.data / "rose", budget="0.005", storage=storage(project, deployed), settings=BRIEF
        )

    first = planned()
    assert (len(first.trained), len(first.checked), first.quote.image_queries) == (3, 2, 5), "the budget covers five"
    interrupted(first, monkeypatch)
    second = planned()
    assert second.quote.image_queries == 0, "the images are bought"
    assert sorted(map(bytes, second.trained.digests)) == sorted(map(bytes, first.trained.digests))
    result = repair(second, report=False, tolerance=1.0)
    assert (result.queries, str(result.spent), result.worse) == (5, "0.005", False)
    with pytest.raises(RunError, match="another repair"):
        plan_repair(project / "first", bench.data / "ink", project / "first-repaired", budget="1")


def interrupted(plan: RepairPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Query the images of a repair, and stop before the training."""
    with monkeypatch.context() as patched:
        patched.setattr("vl2v.commands.repair.train_run", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            repair(plan)


@pytest.mark.slow
def test_the_new_images_may_move(
    bench: Bench, project: Path, deployed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(site: Path) -> RepairPlan:
        return plan_repair(project / "first", site, budget="0.005", storage=paths, settings=BRIEF)

    paths, site, out = storage(project, deployed), tmp_path / "site", RunFolder(project / "first-repaired")
    shutil.copytree(bench.data / "rose", site / "rose")
    first = planned(site)
    interrupted(first, monkeypatch)
    with pytest.raises(RunError, match="another repair"):
        planned(bench.data / "rose")  # the images have not moved
    gone, site = site, flat(site, tmp_path / "moved")
    with pytest.raises(RunError, match=r"have moved(.|\n)*as for 4 others(.|\n)*new location: vl2v repair"):
        planned(gone)
    with pytest.raises(RunError, match="another repair"):
        planned(bench.data / "ink")
    second = planned(site)
    assert sorted(map(bytes, second.trained.digests)) == sorted(map(bytes, first.trained.digests))
    assert [Path(row).parent for row in rows(out.path / TRAINED) + rows(out.path / CHECKED)] == [site] * 5
    assert planned(site).begun

    out.create(second.config, paths)  # as the training does
    site = flat(site, tmp_path / "again")
    locate_images(out, None, paths)
    with pytest.raises(RunError, match=r"repaired, have moved(.|\n)*as for 4 others(.|\n)*--new-site PATH"):
        locate_images(out, None, paths, needed=TRAINING)
    with pytest.raises(RunError, match=r"lacks images of the new site(.|\n)*found: 0 of them"):
        locate_images(out, NewLocations(new_site=bench.data / "ink"), paths)
    done = CliRunner().invoke(
        app, ["final", str(project / "first"), "--new-site", str(site), "--out", str(tmp_path / "f")]
    )
    assert "has no images of a new site" in done.stderr
    final = RunFolder(project / "final")  # with the table of the other run
    final.create(second.config, paths)
    for folder in (final, out):
        config = locate_images(folder, NewLocations(new_site=site), paths, needed=TRAINING)
        assert config.repair is not None
        assert config.repair.images == folder.path / TRAINED
        assert locate_images(folder, None, paths, needed=TRAINING) == config
    shutil.move(out.path, project / "elsewhere")
    moved = RunFolder(project / "elsewhere").config().repair
    assert moved is not None
    assert moved.images == project / "elsewhere" / TRAINED


def flat(site: Path, to: Path) -> Path:
    """Move images to a folder, and give them other names."""
    to.mkdir()
    for i, path in enumerate(sorted(site.rglob("*.png"))):
        path.rename(to / f"{to.name}-{i}.png")
    return to


def test_the_new_images_of_an_earlier_version_stay_where_they_are(tmp_path: Path) -> None:
    (tmp_path / TRAINED).write_text("image\n/gone/1.png\n")
    config = parse(RunConfig, REPAIRED | {"repair": {"run": "first", "images": str(tmp_path / TRAINED)}}, "made")
    assert new_digests(config).shape == (0, 32)
    with pytest.raises(RunError, match=r"expected: the file /gone/1.png"):
        ensure_new_images(config, tmp_path)
    with pytest.raises(RunError, match="does not record the content of its images"):
        at_new_location(RunFolder(tmp_path), config, tmp_path, StoragePaths(), Silent())
    done = CliRunner().invoke(app, ["distill", "photos", "--new-site", str(tmp_path)])
    assert "--new-site is for a run that vl2v repair made" in done.stderr
    for damaged in ("path\nx\n", "image,sha256\nx,0\n", "\0"):
        (tmp_path / TRAINED).write_text(damaged)
        with pytest.raises(RunError, match="cannot be used"):
            ensure_new_images(config, tmp_path)


@pytest.mark.slow
def test_runs_that_cannot_be_repaired_are_refused_before_anything_is_bought(
    bench: Bench, project: Path, deployed: Path, tmp_path: Path
) -> None:
    first, site, paths = project / "first", bench.data / "rose", storage(project, deployed)
    for budget, message in ((None, "No budget"), ("0.001", "does not cover")):
        with pytest.raises(BudgetError, match=message):
            repair(plan_repair(first, site, budget=budget, storage=paths))
    assert not (project / "first-repaired" / "config.yaml").exists()
    with pytest.raises(ConfigError, match="at least 5"):
        plan_repair(first, site, queries=4, storage=paths)
    with pytest.raises(RunError, match="inside the folder of images"):
        plan_repair(first, site, site / "out", storage=paths)
    few = tmp_path / "few"
    few.mkdir()
    for name in "abc":  # three files with the same content
        shutil.copy(site / "bar" / "0.png", few / f"{name}.png")
    with pytest.raises(DataError, match="at least 5 different"):
        plan_repair(first, few, storage=paths)
    card = json.loads((first / "student" / "student.json").read_text())
    settings = yaml.safe_load((first / "config.yaml").read_text())
    settings["distill"]["refit"] = False
    (first / "config.yaml").write_text(yaml.safe_dump(settings | {"method": "erm", "image_weight": 0.5, "align": {}}))
    with pytest.raises(ConfigError, match="learns from labels alone"):
        plan_repair(first, site, storage=paths)
    (first / "config.yaml").write_text(yaml.safe_dump(settings))
    changed = {"at": "now", "before": card["classes"][:-1], "added": {card["classes"][-1]: []}}
    card["provenance"]["classes_changed"] = [changed]
    (first / "student" / "student.json").write_text(json.dumps(card))
    with pytest.raises(Vl2vError):
        plan_repair(first, site, storage=paths)
    (first / "evaluation.json").unlink()
    with pytest.raises(RunError, match="is not finished"):
        plan_repair(first, site, storage=paths)


@pytest.mark.parametrize(("new", "worse"), [(0.896, False), (0.894, True), (0.95, False)])
def test_a_loss_above_the_tolerance_is_reported(new: float, worse: bool) -> None:
    old, now = (Evaluation((DomainScore("ink", "in-domain", 100, value),)) for value in (0.9, new))
    result = Repair(Path("o"), None, old, now, 40, 10, (5, 8), 50, Decimal("0.05"), "USD", 0.005)  # type: ignore[arg-type]
    assert result.worse is worse
    assert ("WORSE" in _text(result, Path("first"))) is worse
    assert "5 before, 8 after" in _text(result, Path("first"))
