"""Other images for a student that was trained on a folder with the classes above the domains."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml
from tiny_dataset import Bench, Runs, bench, runs, vl2v  # noqa: F401 - fixtures

from vl2v.planning.prepare import known_order

CLASSES = ("blank", "bar", "zebra stripe")


@pytest.fixture
def run(runs: Runs, tmp_path: Path) -> Path:
    """Return a run whose settings say that its folder was `class/domain/image`."""
    folder = runs.get().copy(tmp_path / "run")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"]["class_first"] = True
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    card = json.loads((folder / "student" / "student.json").read_text())
    card["provenance"]["config"]["data"]["class_first"] = True
    (folder / "student" / "student.json").write_text(json.dumps(card))
    return folder


def arranged(bench: Bench, root: Path, form: str) -> Path:
    """Copy the images of the tiny dataset to other folders."""
    for image in sorted(bench.data.glob("*/*/*")):
        domain, name, file = image.relative_to(bench.data).parts
        if "DOMAIN" in form or domain == "ink":
            path = root / form.replace("DOMAIN", domain).replace("CLASS", name) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, path)
    return root


@pytest.mark.parametrize(
    ("form", "class_first"),
    [("DOMAIN/CLASS", False), ("CLASS", False), ("CLASS/DOMAIN", True), ("test/CLASS/DOMAIN", True)],
)
def test_the_order_of_another_folder_is_found_by_the_names_of_the_classes(
    bench: Bench, tmp_path: Path, form: str, class_first: bool
) -> None:
    root = arranged(bench, tmp_path, form)
    if form.startswith("test/"):
        arranged(bench, tmp_path, form.replace("test", "train"))
    assert known_order({"class_first": True}, root, CLASSES) == class_first
    assert not known_order({"class_first": False}, root, CLASSES)


def table_of(bench: Bench, root: Path) -> Path:
    """Copy the images, and return a table of them."""
    shutil.copytree(bench.data, root)
    with (file := root / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "domain"])
        for image in sorted(root.glob("*/*/*")):
            writer.writerow([image.relative_to(root), image.parent.name, image.parent.parent.name])
    return file


@pytest.mark.slow
def test_other_folders_and_tables_are_evaluated_and_exported(bench: Bench, tmp_path: Path, run: Path) -> None:
    accuracies = {}
    for form in ("DOMAIN/CLASS", "CLASS", "CLASS/DOMAIN"):
        root = arranged(bench, tmp_path / form.replace("/", "-").lower(), form)
        done = vl2v("evaluate", str(run), str(root), "--json", "--cache", str(bench.root / "cache"))
        assert done.returncode == 0, done.stderr
        accuracies[form] = [row["images"] for row in json.loads(done.stdout)["domains"]]
    assert sum(accuracies["CLASS"]) == 30
    assert len(accuracies["CLASS/DOMAIN"]) == len(accuracies["DOMAIN/CLASS"]) == 3
    table = table_of(bench, tmp_path / "listed")
    done = vl2v("export", str(run), "--onnx", "--data", str(table))
    assert done.returncode == 0, done.stderr


def test_suspects_of_a_table_for_such_a_run(bench: Bench, tmp_path: Path, run: Path) -> None:
    table = table_of(bench, tmp_path / "listed")
    command = ["data", "suspects", str(table), "--run", str(run), "--out", str(tmp_path / "suspects.csv")]
    done = vl2v(*command)
    assert "applies to folders only" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert "applies to folders only" in vl2v(*command, "--class-first").stderr
