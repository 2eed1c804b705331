"""`vl2v trust --reject` and `vl2v predict --reject` on a run folder, in this process."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from solved_run import make_run, trust_content
from tiny_dataset import Bench

import vl2v
from command_line import Done, run_cli
from once import Once
from vl2v.teacher.purchase.ledger import Ledger
from vl2v.teacher.purchase.store import EmbeddingStore


@pytest.fixture(scope="session")
def made(bench: Bench, once: Once) -> Path:
    def both(root: Path) -> None:
        make_run(bench, root / "run")
        make_run(bench, root / "erm", linear=True)

    return once("reject-run", both)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


@pytest.fixture
def nouns(tmp_path: Path) -> Path:
    """A list of two nouns in the teacher file, one in two spellings, and the name of a class."""
    file = tmp_path / "nouns.txt"
    file.write_text("# things\ndot\n\ngrid\nGrid\nZebra-Stripe\n")
    return file


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "vectors.sqlite"


def add(run: Path, nouns: Path, store: Path, *more: str) -> Done:
    return run_cli("trust", run, "--reject", "--reject-texts", nouns, "--store", store, "--budget", "1", *more)


def test_the_quote_counts_the_texts_and_changes_nothing(run: Path, nouns: Path, store: Path) -> None:
    before = trust_content(run)
    done = run_cli("trust", run, "--reject", "--reject-texts", nouns, "--store", store, "--quote", "--json")
    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout)
    assert (cost["text_queries"], cost["cost"]) == (2, "0.0002")  # not Grid, and not the name of a class
    assert trust_content(run) == before


def test_without_a_budget_nothing_is_bought_and_nothing_changes(run: Path, nouns: Path, store: Path) -> None:
    before = trust_content(run)
    done = run_cli("trust", run, "--reject", "--reject-texts", nouns, "--store", store)
    assert done.returncode != 0
    assert "budget" in done.stderr.lower()
    assert trust_content(run) == before


@pytest.mark.slow
def test_texts_are_bought_once_and_preserved_when_trust_is_fitted_again(run: Path, nouns: Path, store: Path) -> None:
    done = add(run, nouns, store, "--json")
    assert done.returncode == 0, done.stderr
    quoted = json.loads(done.stdout)
    assert quoted["trust"]["negative_texts"] == ["dot", "grid"]
    assert "negatives" not in quoted["trust"]  # the embeddings are left out
    by_domain = {row["domain"]: row["negatives"]["0.95"] for row in quoted["domains"]}
    assert all(0 <= share <= 1 for share in by_domain.values())
    assert (by_domain["ink"] + by_domain["neon"]) / 2 >= 0.95  # the share for which the threshold was fitted
    after = trust_content(run)
    assert after["negatives"]["texts"] == ["dot", "grid"]
    assert set(after["reject"]) == {"confidence", "energy", "negatives"}
    with closing(EmbeddingStore(store)) as opened:
        entries = Ledger(opened).entries(str(run.resolve()))
    assert [(entry.purpose, entry.queries) for entry in entries] == [("negative texts", 2)]
    assert run_cli("trust", run).returncode == 0
    assert trust_content(run) == after
    assert add(run, nouns, store).returncode == 0
    with closing(EmbeddingStore(store)) as opened:
        assert len(Ledger(opened).entries(str(run.resolve()))) == 1
    assert run_cli("trust", run, "--no-reject").returncode == 0
    assert "negatives" not in trust_content(run)
    assert set(trust_content(run)["reject"]) == {"confidence", "energy"}


def test_predict_marks_images_of_no_class(bench: Bench, run: Path, nouns: Path, store: Path, tmp_path: Path) -> None:
    assert add(run, nouns, store).returncode == 0
    student = vl2v.load(run)
    assert student.trust is not None
    known, other = bench.data / "ink" / "bar" / "0.png", tmp_path / "other.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(other)
    rows = student.embed([known, other])
    logits = student.logits(student.project([known, other])).numpy()
    scores = student.trust.scores(logits, "negatives", rows)
    trust = trust_content(run)
    trust["reject"]["negatives"]["0.95"] = float(scores.mean())  # between the two
    (run / "student" / "trust.json").write_text(json.dumps(trust))
    wanted = (scores >= scores.mean()).tolist()
    for words in (("--reject",), ("--coverage", "0.95", "--score", "negatives")):
        answers = json.loads(run_cli("predict", run, known, other, *words, "--format", "json").stdout)
        assert [answer["accepted"] for answer in answers] == wanted
    assert run_cli("predict", run, known, other, "--reject").stdout.count("none of these") == 1
    assert "none of these" not in run_cli("predict", run, known, other).stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("predict", "RUN", "IMAGE", "--reject"), 6, "vl2v trust RUN --reject"),
        (("predict", "RUN", "IMAGE", "--coverage", "0.95", "--score", "negatives"), 6, "no negative texts"),
        (("predict", "RUN", "IMAGE", "--reject", "--score", "energy"), 2, "--score negatives"),
        (("predict", "RUN", "IMAGE", "--score", "texts", "--coverage", "0.95"), 2, "confidence or energy or negatives"),
        (("predict", "ERM", "IMAGE", "--reject"), 6, "linear classifier"),
        (("trust", "ERM", "--reject"), 6, "the default method"),
        (("trust", "RUN", "--reject", "--reject-texts", "/nowhere.txt"), 2, "--reject-texts"),
        (("trust", "RUN", "--reject", "--reject-texts", "EMPTY"), 2, "1 to 10,000"),
        (("trust", "RUN", "--reject", "--reject-texts", "CLASSES"), 2, "only names of classes"),
        (("trust", "RUN", "--reject-texts", "EMPTY"), 2, "add --reject"),
        (("trust", "RUN", "--no-reject", "--quote"), 2, "add --reject"),
        (("trust", "RUN", "--quote"), 2, "add --reject"),
        (("trust", "RUN", "--reject", "--budget", "1"), 4, "a photo of an animal"),  # the teacher file lacks the nouns
    ],
)
def test_wrong_options_are_refused(
    bench: Bench, made: Path, run: Path, tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    before = trust_content(run)
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    (tmp_path / "classes.txt").write_text("bar\nBlank\nzebra stripe\n")
    names = {
        "RUN": run, "ERM": made / "erm", "IMAGE": bench.data / "ink" / "bar" / "0.png",
        "EMPTY": tmp_path / "empty.txt", "CLASSES": tmp_path / "classes.txt",
    }  # fmt: skip
    done = run_cli(*(names.get(word, word) for word in words))
    assert message in " ".join(done.stderr.split())
    assert done.returncode == code
    assert trust_content(run) == before


def test_without_the_images_nothing_is_bought(run: Path, nouns: Path, store: Path) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("root: ", "root: /nowhere"))
    done = add(run, nouns, store)
    assert done.returncode == 8
    assert "they have moved" in done.stderr
    with closing(EmbeddingStore(store)) as opened:
        assert not Ledger(opened).entries(str(run.resolve()))


@pytest.mark.slow
def test_texts_like_a_new_class_are_removed(run: Path, nouns: Path, store: Path) -> None:
    assert add(run, nouns, store).returncode == 0
    before = trust_content(run)["reject"]["negatives"]
    done = run_cli("classes", "add", run, "dot", "--budget", "1", "--store", store)
    assert done.returncode == 0, done.stderr
    assert trust_content(run)["negatives"]["texts"] == ["grid"]
    assert trust_content(run)["reject"]["negatives"] == before
    done = run_cli("trust", run)  # with a class that has no images
    assert done.returncode == 0, done.stderr
    assert trust_content(run)["negatives"]["texts"] == ["grid"]
    done = run_cli("classes", "remove", run, "bar")
    assert done.returncode == 0, done.stderr
    assert add(run, nouns, store).returncode == 0  # with images of a removed class
    assert trust_content(run)["negatives"]["texts"] == ["grid"]
