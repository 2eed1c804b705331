"""`Evaluation.beside` works under its new name, and the key in files is unchanged."""

from __future__ import annotations

import pytest

from vl2v.evaluation.evaluation import DomainScore, Evaluation


def test_alternatives_keep_the_key_of_earlier_files_and_the_old_name_for_one_release() -> None:
    alternative = Evaluation((DomainScore("ink", "in-domain", 3, 0.5),))
    evaluation = Evaluation((DomainScore("ink", "in-domain", 3, 0.9),), {"last": alternative})
    content = evaluation.to_dict()
    assert list(content["beside"]) == ["last"]
    assert Evaluation.from_dict(content) == evaluation
    with pytest.warns(DeprecationWarning, match="alternatives"):
        assert evaluation.beside == {"last": alternative}
