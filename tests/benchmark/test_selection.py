from __future__ import annotations

import random
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_records import DOMAINS, record

from vl2v.benchmark.results import ZERO_SHOT, Record
from vl2v.benchmark.selection import LAST, LODO, ORACLE, RULES, VALIDATION, Selection, select
from vl2v.errors import ConfigError, RunError

RATES = (1e-5, 1e-4, 1e-3)
few = st.integers(0, 4).map(lambda value: value / 4)  # so that ties happen


@st.composite
def grids(draw: st.DrawFn) -> list[Record]:
    """Return records of two targets, two seeds and three candidates, with two sets of weights and all crossed jobs."""
    selected = []
    for target in ("photo", "sketch"):
        for seed in (0, 1):
            for rate in RATES:
                for crossed in (None, *(domain for domain in DOMAINS if domain != target)):
                    for weights in ("swad", "last"):
                        figures = draw(few), draw(few)
                        more: dict[str, Any] = {"candidate": {"train.lr": rate}, "crossed": crossed}
                        selected.append(record("adip", target, seed, *figures, weights=weights, **more))
    return selected


def by_brute_force(records: list[Record], rule: str, weights: str) -> list[Record]:
    fitting = [r for r in records if r.weights == weights]
    chosen = []
    for target in ("photo", "sketch"):
        for seed in (0, 1):
            of_target_and_seed = [r for r in fitting if (r.target, r.seed) == (target, seed)]
            mains = sorted(
                (r for r in of_target_and_seed if r.crossed is None), key=lambda r: str(r.candidate["train.lr"])
            )
            scores = []
            for main in mains:
                crossed = [r.test.accuracy for r in of_target_and_seed if r.crossed and r.candidate == main.candidate]
                by_rule = {VALIDATION: main.validation_accuracy, LAST: main.validation_accuracy, LODO: fmean(crossed)}
                scores.append({**by_rule, ORACLE: main.test.accuracy}[rule])
            chosen.append(mains[scores.index(max(scores))])
    return chosen


@settings(max_examples=25)  # a grid is many draws
@given(grids(), st.sampled_from(list(RULES)), st.randoms(use_true_random=False))
def test_selection_is_that_of_brute_force_in_any_order(records: list[Record], rule: str, chance: random.Random) -> None:
    expected = by_brute_force(records, rule, "last" if rule == LAST else "swad")
    assert list(select(records, rule).whole()) == expected
    chance.shuffle(records)
    assert list(select(records, rule).whole()) == expected


@settings(max_examples=25)  # a grid is many draws
@given(grids())
def test_only_the_oracle_depends_on_the_accuracy_on_the_target(records: list[Record]) -> None:
    def blind(one: Record) -> Record:
        fresh = record("adip", one.target, one.seed, 0.5, one.validation_accuracy, weights=one.weights)
        return Record(**{**vars(one), "test": fresh.test}) if one.crossed is None else one

    for rule in (VALIDATION, LAST, LODO):
        chosen = [r.candidate for r in select(records, rule).records]
        assert chosen == [r.candidate for r in select([blind(r) for r in records], rule).records]


def test_weights_are_selected_by_name_and_score() -> None:
    records = [
        record(weights="swad", validation=0.9, candidate={"lr": 1}),
        record(weights="best", validation=0.7, candidate={"lr": 1}),
        record(weights="swad", validation=0.8, candidate={"lr": 2}),
        record(weights="best", validation=0.8, candidate={"lr": 2}),
        record(ZERO_SHOT),
    ]
    assert [(r.weights, r.candidate) for r in select(records).whole()] == [("swad", {"lr": 1}), ("", {})]
    assert [(r.weights, r.candidate) for r in select(records, weights="best").whole()] == [
        ("best", {"lr": 2}),
        ("", {}),
    ]


def lacking(selection: Selection) -> str:
    with pytest.raises(RunError, match="vl2v benchmark run") as caught:
        selection.whole()
    return str(caught.value)


def test_missing_jobs_are_reported() -> None:
    one, two = (record(candidate={"lr": rate}) for rate in (1, 2))
    assert "adip, target sketch, seed 0: no wise-ft 0.5 weights, there are swad" in lacking(
        select([one], weights="wise-ft 0.5")
    )
    crossed = [record(candidate={"lr": rate}, crossed=domain) for rate in (1, 2) for domain in ("art", "photo")]
    message = lacking(select([one, two, *crossed], LODO))
    assert 'no crossed run without cartoon for {"lr": 1}' in message
    assert "only crossed runs" in lacking(select([one, crossed[2]]))
    elsewhere = [record(target="photo", candidate={"lr": rate}) for rate in (1, 2)]
    selected = select([one, *elsewhere])
    assert "adip, target sketch, seed 0: 1 of 2 candidates" in lacking(selected)
    assert [r.target for r in selected.records] == ["photo"]


def test_a_grid_that_has_just_started_is_summarised() -> None:
    message = lacking(select([record(seed=seed) for seed in range(40)], weights="best"))
    assert "and 34 more" in message
    assert message.count("seed ") == 6


def test_a_single_candidate_needs_no_crossed_runs() -> None:
    assert select([record()], LODO).whole() == (record(),)


def test_contradictions_and_duplicates_are_refused() -> None:
    with pytest.raises(ConfigError, match="validation, last, lodo, oracle"):
        select([record()], "test")
    with pytest.raises(ConfigError, match="contradict"):
        select([record()], LAST, "swad")
    assert select([record(weights="last")], LAST, "last").whole()
    with pytest.raises(RunError, match="each job once"):
        select([record(), record()])
