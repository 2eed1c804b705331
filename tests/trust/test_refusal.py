"""The reason why a student cannot reject predictions is the same in `vl2v predict` and an exported file."""

from __future__ import annotations

import pytest

from vl2v_runtime.trust import ALL_SCORES, NEGATIVES, SCORES, Trust, refusal

PLAIN = Trust(1.0, {score: {0.95: 0.5} for score in SCORES})


@pytest.mark.parametrize("score", ALL_SCORES)
@pytest.mark.parametrize("linear", [False, True])
def test_without_trust_data_no_score_has_thresholds(score: str, linear: bool) -> None:
    reason = refusal(None, score, linear=linear)
    assert reason is not None
    assert "no rejection thresholds" in reason["problem"]
    assert "vl2v trust RUN" in reason["next_step"]


def test_only_the_score_of_negative_texts_needs_them_and_a_linear_classifier_cannot_have_any() -> None:
    assert all(refusal(PLAIN, score, linear=linear) is None for score in SCORES for linear in (False, True))
    texts, linear = (refusal(PLAIN, NEGATIVES, linear=linear) for linear in (False, True))
    assert texts is not None
    assert linear is not None
    assert "--reject" in texts["next_step"]
    assert "linear classifier" in linear["found"]
    assert "--score confidence or energy" in linear["next_step"]
