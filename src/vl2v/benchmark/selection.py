"""Model selection: which candidate and which weights of a method a table shows.

The rules are those of Gulrajani and Lopez-Paz (ICLR 2021). This is not the leaving out of a domain to test it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from vl2v.benchmark.records import ZERO_SHOT, Record
from vl2v.errors import ConfigError, RunError

VALIDATION, LAST, LODO, ORACLE = "validation", "last", "lodo", "oracle"

# What a caption says of each rule.
RULES = {
    VALIDATION: "training-domain validation",
    LAST: "last step, candidates by training-domain validation",
    LODO: "leave-one-domain-out cross-validation on the source domains",
    ORACLE: "ORACLE: by the target's own test labels, an upper bound and not a valid result",
}

# One candidate's records: of the job itself under None, of its crossed jobs under the source domain left out.
Candidate = dict[str | None, list[Record]]
Place = tuple[str, str, int]  # method, target, seed


def shortened(lines: Sequence[str], most: int = 6) -> str:
    """Lines as one, of which no more than `most` are spelt out: a grid that has just begun lacks hundreds."""
    rest = len(lines) - most
    return "; ".join([*lines[:most], *([f"and {rest} more"] if rest > 0 else [])])


@dataclass(frozen=True)
class Selection:
    """One record for every method, target and seed that is finished.

    Attributes:
        records: in the order of method, target and seed.
        lacking: what could not be selected since records are missing, a line each.
    """

    records: tuple[Record, ...]
    lacking: tuple[str, ...] = ()

    def whole(self) -> tuple[Record, ...]:
        """The records, if nothing is lacking.

        Raises:
            RunError: saying what is lacking.
        """
        if self.lacking:
            raise RunError(
                "This selection needs more finished jobs.",
                expected="every candidate of every method, target and seed, with the requested weights",
                found=shortened(self.lacking),
                next_step="continue with vl2v benchmark run, or show what is finished: --partial",
            )
        return self.records


def select(records: Sequence[Record], rule: str = VALIDATION, weights: str | None = None) -> Selection:
    """Choose a candidate for every method, target and seed; of equals the first by its settings as sorted JSON.

    The score that chooses is that of the very weights that are shown: with ``weights="best"`` it is their validation
    accuracy that counts, not the kept weights'. Where there is one candidate nothing is chosen, and ``lodo`` asks for
    no crossed records. How many candidates a method has is the most seen at any target and seed, but for a seed that
    inherits another one's choice.

    Args:
        records: of any number of jobs, in any order.
        rule: ``validation``, the mean validation accuracy over source domains; ``last``, the same, for the last
            step's weights; ``lodo``, the mean accuracy on source domains that were left out too; ``oracle``, the
            accuracy on the target itself.
        weights: None for those that the run keeps (the last step's with ``last``), or ``swad``, ``best``, ``last``,
            ``wise-ft 0.5``. The teacher has one set, which any name means.

    Raises:
        ConfigError: if the rule is unknown, or `weights` contradict it.
        RunError: if two records speak of the same weights of the same job.
    """
    if rule not in RULES:
        raise ConfigError(
            "Unknown selection rule.", expected=", ".join(RULES), found=rule, next_step="correct --select"
        )
    if rule == LAST and weights not in (None, LAST):
        raise ConfigError(
            "The rule and the weights contradict each other.",
            expected=f"the last step's weights, as the rule {LAST} says",
            found=f"{weights} weights",
            next_step=f"select by {VALIDATION} to see these weights",
        )
    chosen, lacking = [], []
    places = _by_place(records)
    most = {method: max(len(found) for (m, *_), found in places.items() if m == method) for method, *_ in places}
    for place, candidates in sorted(places.items()):
        try:
            if _inherited(candidates):
                if rule not in (VALIDATION, LAST):
                    raise _LackingError(f"its candidate was selected by {VALIDATION}, with another seed")
            elif len(candidates) < most[place[0]]:
                raise _LackingError(f"{len(candidates)} of {most[place[0]]} candidates")
            chosen.append(_choose(candidates, rule, LAST if rule == LAST else weights))
        except _LackingError as error:
            method, target, seed = place
            lacking.append(f"{method}, target {target}, seed {seed}: {error}")
    return Selection(tuple(chosen), tuple(lacking))


class _LackingError(Exception):
    """Records are missing for one method, target and seed; the message says which."""


def _by_place(records: Sequence[Record]) -> dict[Place, dict[str, Candidate]]:
    places: dict[Place, dict[str, Candidate]] = {}
    for record in records:
        candidates = places.setdefault((record.method, record.target, record.seed), {})
        candidates.setdefault(_spelling(record), {}).setdefault(record.crossed, []).append(record)
    return places


def _inherited(candidates: Mapping[str, Candidate]) -> bool:
    return all(r.inherited for candidate in candidates.values() for records in candidate.values() for r in records)


def _spelling(record: Record) -> str:
    return json.dumps(dict(record.candidate), sort_keys=True, default=str)


def _choose(candidates: Mapping[str, Candidate], rule: str, weights: str | None) -> Record:
    """The best candidate's record; the first in the order of spellings among equals."""
    mains = {spelling: _with_weights(candidates[spelling], None, weights) for spelling in sorted(candidates)}
    if len(mains) == 1:
        return next(iter(mains.values()))
    scores: Mapping[str, Callable[[str], float]] = {
        LODO: lambda spelling: _crossed(candidates[spelling], mains[spelling], weights),
        ORACLE: lambda spelling: mains[spelling].test.accuracy,
    }
    score = scores.get(rule, lambda spelling: mains[spelling].validation_accuracy)
    return mains[max(mains, key=score)]


def _crossed(candidate: Candidate, main: Record, weights: str | None) -> float:
    """The mean accuracy on source domains left out in turn, each measured by a job that never saw it."""
    if absent := [domain for domain in sorted(main.validation) if domain not in candidate]:
        raise _LackingError(f"no crossed run without {', '.join(absent)} for {_spelling(main)}")
    return fmean(_with_weights(candidate, domain, weights).test.accuracy for domain in main.validation)


def _with_weights(candidate: Candidate, crossed: str | None, weights: str | None) -> Record:
    found = candidate.get(crossed, [])
    if not found:
        raise _LackingError("only crossed runs, not the one that is tested on the target")
    kept = weights is None or found[0].method == ZERO_SHOT
    fitting = [record for record in found if (record.kept if kept else record.weights == weights)]
    if not fitting:
        names = ", ".join(sorted(record.weights for record in found))
        raise _LackingError(f"no {'saved' if kept else weights} weights, there are {names or 'none'}")
    if len(fitting) > 1:
        one = fitting[0]
        raise RunError(
            "There are two records of the same weights of the same job.",
            expected="each job once",
            found=f"{one.method}, target {one.target}, seed {one.seed}, {_spelling(one)}: {len(fitting)} records",
            next_step="read each benchmark folder once, and grids with different settings under different labels",
        )
    return fitting[0]
