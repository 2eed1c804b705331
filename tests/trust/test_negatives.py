"""Negative texts: their score, their selection, and damaged files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vl2v.errors import ConfigError
from vl2v.trust import files
from vl2v.trust.fit import fit
from vl2v.trust.negatives import make_negatives, read_nouns, resembling, with_negatives, without_similar
from vl2v_runtime.negatives import Negatives
from vl2v_runtime.trust import Trust

HEAD = np.eye(4, 6, dtype=np.float32)[:3]  # of three classes in six dimensions
OTHER, NEAR = np.eye(6)[4], np.eye(6)[:2].sum(axis=0) / np.sqrt(2)  # NEAR is between the first two classes


def images(noise: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits, labels and embeddings of 60 images near the texts of their classes."""
    labels = np.arange(60) % 3
    rows = HEAD[labels] + np.random.default_rng(0).normal(scale=noise, size=(60, 6))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return 10 * rows @ HEAD.T, labels, rows


def negatives(*embeddings: np.ndarray) -> Negatives:
    rows = np.array(embeddings, np.float16)
    return Negatives(tuple(f"text {i}" for i in range(len(rows))), rows, 10.0, 0.5)


def fitted() -> Trust:
    logits, labels, rows = images()
    trust = fit(logits, labels, np.array(["ink"]).repeat(60), rows)
    assert trust is not None
    return with_negatives(trust, negatives(OTHER, np.eye(6)[5]), logits, rows)


def test_the_score_agrees_with_a_computation_by_hand() -> None:
    texts = negatives(np.eye(2)[1], np.eye(2)[1])
    # logits 4 and 4 at T = 2: 2 + log 2; cosine 0.6 twice: 10 * 0.6 / 2 + log 2
    assert texts.scores([[4.0, 4.0]], [[0.8, 0.6]], 2.0) == pytest.approx([2 - 3])
    assert texts.scores(np.zeros((0, 2)), np.zeros((0, 2)), 2.0).shape == (0,)
    assert np.isfinite(texts.scores([[1e6, -1e6]], [[0.0, 1.0]], 1e-3)).all()
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        texts.scores([[4.0, 4.0]], [[0.8, 0.6, 0.0]], 2.0)


def test_the_threshold_accepts_the_stated_share_of_validation_images() -> None:
    trust, (logits, _, rows) = fitted(), images()
    for coverage in trust.coverages:
        accepted = trust.accepts(logits, "negatives", coverage, rows)
        assert coverage <= accepted.mean() < coverage + 0.02
    unknown = np.array([OTHER])
    assert not trust.accepts(10 * unknown @ HEAD.T, "negatives", 0.99, unknown).any()
    with pytest.raises(ValueError, match="embeddings"):
        trust.accepts(logits, "negatives")
    assert trust.available == ("confidence", "energy", "negatives")


def test_trust_without_negative_texts_is_unchanged_and_has_a_next_step() -> None:
    trust, (logits, _, rows) = fitted(), images()
    old = with_negatives(trust, None, logits, rows)
    assert set(old.to_dict()) == {"format", "temperature", "calibration", "reject", "domains", "drift"}
    assert set(old.to_dict()["reject"]) == {"confidence", "energy"}
    assert old.available == ("confidence", "energy")
    with pytest.raises(ValueError, match="vl2v trust RUN --reject"):
        old.accepts(logits, "negatives", 0.95, rows)


def test_negative_texts_survive_writing_and_reading_bit_for_bit(tmp_path: Path) -> None:
    trust, (logits, _, rows) = fitted(), images()
    files.save(trust, tmp_path)
    again = files.load(tmp_path)
    assert again is not None
    assert again.to_dict() == trust.to_dict()
    assert np.array_equal(again.scores(logits, "negatives", rows), trust.scores(logits, "negatives", rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n.update(texts=[]), "list"),
        (lambda n: n.update(texts="dot"), "list"),
        (lambda n: n.update(texts=["dot"]), "bytes"),
        (lambda n: n.update(texts=["dot", 7]), "string"),
        (lambda n: n.update(dimension=10**9), "dimension"),
        (lambda n: n.update(dimension=7), "bytes"),
        (lambda n: n.update(scale=0), "scale"),
        (lambda n: n.update(scale=True), "scale"),
        (lambda n: n.update(float16="?"), "base64"),
        (lambda n: n.update(float16=7), "broken"),
        (lambda n: n.update(float16="/////w" * 4 + "=="), "finite|bytes|base64"),
        (lambda n: n.update(limit=float("1e9")), "limit"),
        (lambda n: n.pop("limit"), "limit"),
        (lambda n: n.clear(), "texts"),
    ],
)
def test_broken_negative_texts_are_refused(change: Callable[[dict[str, Any]], object], message: str) -> None:
    content = json.loads(json.dumps(fitted().to_dict()))
    change(content["negatives"])
    with pytest.raises(ValueError, match=message):
        Trust.from_dict(content)


def test_negative_texts_without_their_threshold_or_of_another_space_are_refused() -> None:
    content = fitted().to_dict()
    del content["reject"]["negatives"]
    with pytest.raises(ValueError, match="broken"):
        Trust.from_dict(content)
    fitted().check_dimension(6)
    for dimension in (5, None):
        with pytest.raises(ValueError, match="of dimension 6"):
            fitted().check_dimension(dimension)


def test_texts_that_resemble_a_class_are_not_selected() -> None:
    _, labels, rows = images()
    like = HEAD[1] + 0.02 * OTHER  # another word for the second class
    like /= np.linalg.norm(like)
    embeddings = np.array([OTHER, like, NEAR])
    assert resembling(embeddings, HEAD, rows, labels).tolist() == [False, True, False]
    negatives = make_negatives(["other", "like", "near"], embeddings, 10.0, HEAD, rows, labels)
    assert negatives is not None
    assert negatives.texts == ("other", "near")
    assert negatives.limit == pytest.approx(1 / np.sqrt(2), abs=1e-3)
    assert make_negatives(["like"], [like], 10.0, HEAD, rows, labels) is None


def test_texts_like_a_class_without_images_are_not_selected() -> None:
    _, labels, rows = images()
    head = np.concatenate([HEAD, [OTHER]])
    negatives = make_negatives(["other", "near"], np.array([OTHER, NEAR]), 10.0, head, rows, labels)
    assert negatives is not None
    assert negatives.texts == ("near",)


def test_texts_like_a_new_class_are_removed() -> None:
    trust = fitted()
    assert without_similar(trust, HEAD).to_dict() == trust.to_dict()
    fewer = without_similar(trust, np.concatenate([HEAD, [OTHER]]))
    assert fewer.negatives is not None
    assert fewer.negatives.texts == ("text 1",)
    assert fewer.reject == trust.reject
    none = without_similar(trust, np.concatenate([HEAD, np.eye(6)[4:]]))
    assert none.negatives is None
    assert none.available == ("confidence", "energy")


def test_the_built_in_list_is_valid() -> None:
    nouns = read_nouns()
    assert len(nouns) > 500
    assert len({noun.casefold() for noun in nouns}) == len(nouns)
    assert {"animal", "texture", "word"} <= set(nouns)


@pytest.mark.parametrize("content", [b"", b"# only\n \n", b"\xff\xfe\x00", b"a\x07bell", b"x" * 2000, None])
def test_wrong_lists_are_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "nouns.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="--reject-texts"):
        read_nouns(file)
