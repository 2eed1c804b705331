from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vl2v.trust.calibration import fit_temperature
from vl2v.trust.files import FILE, load, save
from vl2v.trust.fit import fit
from vl2v_runtime.trust import Trust


def answers(count: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    logits = (12 * np.eye(3)[labels] + rng.normal(scale=9, size=(count, 3))).astype(np.float32)
    rows = np.eye(8)[labels] + rng.normal(scale=0.1, size=(count, 8))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return logits, labels, np.repeat(["ink", "neon"], count // 2), rows


def test_overconfident_answers_are_cooled_and_better_calibrated() -> None:
    trust = fit(*answers())
    assert trust is not None
    assert trust.temperature > 1
    assert trust.calibration["ece_after"] < trust.calibration["ece_before"]
    assert trust.calibration["images"] == 200
    assert trust.reference is not None
    assert trust.reference.names == ("ink", "neon")


@pytest.mark.parametrize(("count", "counts"), [(200, True), (80, False)])
def test_the_hardest_source_domain_determines_the_temperature(count: int, counts: bool) -> None:
    logits, labels, domains, _ = answers(count)
    logits[domains == "neon"] *= 2  # twice as confident, with the same accuracy
    trust = fit(logits, labels, domains)
    assert trust is not None
    hardest = fit_temperature(logits[domains == "neon"], labels[domains == "neon"])
    assert hardest > fit_temperature(logits, labels)
    assert trust.temperature == (hardest if counts else fit_temperature(logits, labels))


def test_without_images_there_is_no_trust_and_without_embeddings_no_drift() -> None:
    logits, labels, domains, _ = answers()
    assert fit(logits[:0], labels[:0], domains[:0]) is None
    trust = fit(logits, labels, domains)
    assert trust is not None
    assert trust.reference is None
    assert "domains" not in trust.to_dict()


def test_one_class_and_one_image_are_valid() -> None:
    trust = fit(np.ones((1, 1), np.float32), np.zeros(1, np.int64), np.array(["ink"]))
    assert trust is not None
    assert trust.temperature == 1
    assert trust.accepts(np.ones((2, 1))).all()


def test_trust_data_survive_writing_and_reading(tmp_path: Path) -> None:
    trust = fit(*answers())
    assert trust is not None
    save(trust, tmp_path)
    again = load(tmp_path)
    assert again is not None
    assert again.to_dict() == trust.to_dict() == json.loads((tmp_path / FILE).read_text())
    logits, _, _, rows = answers()
    assert np.array_equal(again.accepts(logits), trust.accepts(logits))
    assert again.drift(rows) == trust.drift(rows)
    save(None, tmp_path)
    assert load(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 9}'])
def test_a_broken_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=r"trust|Expecting|property"):
        load(tmp_path)
    assert Trust.from_dict(Trust(1.0, {"confidence": {}, "energy": {}}).to_dict()).temperature == 1
