"""Labels from a teacher: the table, the trust flag, the costs, and runs on the table."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_dataset import Bench, bench  # noqa: F401 - a fixture

import vl2v
from command_line import run_cli
from vl2v.commands.label import Labels, _decide, least_images
from vl2v.commands.label_table import ensure_trainable, warn_of_faults
from vl2v.errors import ConfigError, DataError
from vl2v.locations import StoragePaths
from vl2v.progress import Recorder, Silent, Vl2vWarning

NAMES = ["blank", "bar", "zebra stripe"]


@pytest.fixture
def unsorted(bench: Bench, tmp_path: Path) -> Bench:
    """The images of one domain without class folders, those of another with them, and a teacher file with both."""
    known = dict(np.load(bench.teacher.removeprefix("file:")))
    paths: list[str] = []
    for old in map(str, known["paths"]):
        domain, kind, name = old.split("/")
        new = f"{kind}-{name}" if domain == "ink" else f"{kind}/{name}" if domain == "rose" else old
        folder = tmp_path / ("data" if domain == "ink" else "few")
        if domain != "neon":
            (folder / new).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(bench.data / old, folder / new)
        paths.append(new)
    np.savez(tmp_path / "teacher.npz", **(known | {"paths": np.array(paths)}))
    shutil.copy(bench.root / "student.safetensors", tmp_path)
    return Bench.at(tmp_path)


def label(unsorted: Bench, out: str = "labels.csv", **more: object) -> Labels:
    storage = StoragePaths(unsorted.root / "cache", unsorted.root / "vectors.sqlite")
    return vl2v.label(unsorted.data, unsorted.teacher, NAMES, unsorted.root / out, storage=storage, **more)  # type: ignore[arg-type]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


@pytest.mark.parametrize(
    ("names", "message"),
    [("1,2", "numbers instead of class names"), ("cat,none", "missing values"), ("cat,dog,cat;dog", "several classes")],
)
def test_names_that_a_run_does_not_accept_are_refused_before_the_purchase(
    unsorted: Bench, tmp_path: Path, names: str, message: str
) -> None:
    out = tmp_path / "refused.csv"
    done = run_cli(
        *unsorted.flags("label", str(unsorted.data), "--teacher", unsorted.teacher, "--classes", names), "--out", out
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "--layout-as-found" in done.stderr
    if names == "1,2":
        (tmp_path / "classes.yaml").write_text("1: a cat\n2: a dog\n")
        ensure_trainable(["1", "2"], out)
    assert not out.exists()


def test_a_table_that_a_run_does_not_accept_leads_to_a_warning(tmp_path: Path) -> None:
    progress = Recorder(Silent())
    for content, message in (("a.png,cat\nb.png,cat\n", "the only class"), ("", "no row")):
        (tmp_path / "l.csv").write_text(f"image,label\n{content}")
        with pytest.warns(Vl2vWarning):
            warn_of_faults(tmp_path / "l.csv", False, False, progress)
        assert message in progress.warnings[-1]
    (tmp_path / "l.csv").write_text("image,label\na.png,cat\nb.png,dog\n")
    warn_of_faults(tmp_path / "l.csv", False, False, progress)
    assert len(progress.warnings) == 2


def test_the_table_has_the_classes_of_the_teacher_and_its_embeddings_are_paid_for_once(unsorted: Bench) -> None:
    labels = label(unsorted)
    table = rows(labels.file)
    assert labels.written == len(table) == 30
    for row in table:
        assert row["image"].startswith("data/")
        assert row["label"].replace(" ", "_") in row["image"]
        assert 0.9 < float(row["confidence"]) <= 1
        assert row["trusted"] == ""
    assert (labels.queries, labels.accuracy, labels.trusted) == ((30, 3), None, None)
    assert label(unsorted, "again.csv").queries == (0, 0)


def test_checked_images_decide_which_labels_are_trusted(unsorted: Bench) -> None:
    labels = label(unsorted, check=unsorted.root / "few")
    assert (labels.checked, labels.accuracy, labels.queries) == (30, 1.0, (60, 3))
    assert labels.trusted is not None
    assert labels.trusted.all()
    assert {row["trusted"] for row in rows(labels.file)} == {"yes"}


def test_prediction_sets_have_the_stated_coverage_on_images_of_the_same_kind() -> None:
    generator = np.random.default_rng(0)
    covered, sizes = [], []
    for _ in range(200):
        truth = generator.integers(4, size=600)
        logits = generator.normal(size=(600, 4)) + 2 * np.eye(4)[truth]
        parts = [logits[200:].astype(np.float32), logits[:200].astype(np.float32)]
        predictions, confidence, trusted = _decide(parts, truth[:200], 0.1)
        assert trusted is not None
        wrong = predictions != truth[200:]
        covered.append(
            1 - (trusted & wrong).mean()
        )  # a trusted wrong label is a prediction set without the correct class
        sizes.append(trusted.mean())
        assert ((confidence > 0.25) & (confidence <= 1)).all()
    assert np.mean(covered) >= 0.9
    assert np.mean(sizes) > 0.3


def test_too_few_checked_images_are_refused_before_anything_is_bought(unsorted: Bench) -> None:
    assert (least_images(0.05), least_images(0.1), least_images(0.5)) == (19, 9, 1)
    with pytest.raises(DataError, match=r"at least 99 labelled images(.|\n)*30"):
        label(unsorted, check=unsorted.root / "few", error=0.01)
    assert label(unsorted).queries == (30, 3)


def test_only_trusted_labels_and_wrong_arguments(unsorted: Bench) -> None:
    with pytest.raises(ConfigError, match="--check"):
        label(unsorted, trusted_only=True)
    with pytest.raises(ConfigError, match=r"\.csv"):
        label(unsorted, "labels.txt")
    with pytest.raises(ConfigError, match="between 0 and 1"):
        label(unsorted, error=float("nan"), check=unsorted.root / "few")
    (unsorted.root / "labels.csv").write_text("")
    with pytest.raises(ConfigError, match="a new file"):
        label(unsorted)
    shutil.move(unsorted.root / "few" / "bar", unsorted.root / "few" / "baz")
    with pytest.raises(DataError, match="baz"):
        label(unsorted, "new.csv", check=unsorted.root / "few")


@pytest.mark.slow
def test_a_run_on_the_table_buys_nothing(unsorted: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(unsorted.root)
    flags = ["--teacher", unsorted.teacher, "--classes", ",".join(NAMES), "--check", "few", "--json"]
    done = run_cli("label", "data", *unsorted.flags(*flags))
    assert json.loads(done.stdout)["classes"] == {"blank": 10, "bar": 10, "zebra stripe": 10}
    refused = run_cli("label", "few", *unsorted.flags(*flags[:4], "--out", "few.csv"))
    assert "--layout-as-found" in refused.stderr
    accepted = run_cli(
        "label", "few", *unsorted.flags(*flags[:4], "--out", "few.csv", "--layout-as-found", "--skip-bad")
    )
    assert accepted.returncode == 0, accepted.stderr
    quote = run_cli("quote", "labels.csv", *unsorted.flags("--teacher", unsorted.teacher, "--json"))
    assert json.loads(quote.stdout)["image_queries"] == 0
