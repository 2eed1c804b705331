"""Model selection: which candidate and which weights of a method a table shows.

The rules are those of Gulrajani and Lopez-Paz (ICLR 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from vl2v.benchmark.results import ZERO_SHOT, Record, candidate_key
from vl2v.errors import ConfigError, RunError

VALIDATION, LAST, LODO, ORACLE = "validation", "last", "lodo", "oracle"

# Text of each rule in captions.
RULES = {
    VALIDATION: "training-domain validation",
    LAST: "last step, candidates by training-domain validation",
    LODO: "leave-one-domain-out cross-validation on the source domains",
    ORACLE: "ORACLE: by the target's own test labels, an upper bound and not a valid result",
}

# One candidate's records: of the job itself under None, of its crossed jobs under the source domain left out.
Candidate = dict[str | None, list[Record]]
RunKey = tuple[str, str, int]  # method, target, seed


def joined(lines: Sequence[str], most: int = 6) -> str:
    """Join lines, at most `most` of them: a grid that has just started lacks hundreds of records."""
    excess = len(lines) - most
    return "; ".join([*lines[:most], *([f"and {excess} more"] if excess > 0 else [])])


@dataclass(frozen=True)
class Selection:
    """One record for each finished combination of method, target and seed.

    Attributes:
        records: records in the order of method, target and seed.
        lacking: combinations without a selection because records are missing, one line each.
    """

    records: tuple[Record, ...]
    lacking: tuple[str, ...] = ()

    def whole(self) -> tuple[Record, ...]:
        """Return the records if none is missing.

        Raises:
            RunError: lists the missing records.
        """
        if self.lacking:
            raise RunError(
                "This selection needs more finished jobs.",
                expected="every candidate of every method, target and seed, with the requested weights",
                found=joined(self.lacking),
                next_step="continue with vl2v benchmark run, or show what is finished: --partial",
            )
        return self.records


def select(records: Sequence[Record], rule: str = VALIDATION, weights: str | None = None) -> Selection:
    """Select a candidate for each method, target and seed. Of equal candidates, the first by sorted JSON is selected.

    The selection uses the scores of the weights that are shown: with ``weights="best"``, their validation accuracy and
    not that of the saved weights. A single candidate needs no selection, and ``lodo`` then needs no crossed records. A
    method is expected to have its largest number of candidates at every target and seed, except for seeds that inherit
    the selection of another seed.

    Args:
        records: records of any number of jobs, in any order.
        rule: ``validation``, the mean validation accuracy over source domains; ``last``, the same for the weights of
            the last step; ``lodo``, the mean accuracy on source domains that were also held out; ``oracle``, the
            accuracy on the target itself.
        weights: ``swad``, ``best``, ``last`` or ``wise-ft 0.5``; None for the saved weights (with ``last``, those of
            the last step). The teacher has one set of weights, whatever the name.

    Raises:
        ConfigError: if the rule is unknown, or `weights` contradict it.
        RunError: if there are two records of the same weights of the same job.
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
    selection, lacking = [], []
    runs = _by_run(records)
    candidate_counts = {method: max(len(some) for (m, *_), some in runs.items() if m == method) for method, *_ in runs}
    for key, candidates in sorted(runs.items()):
        try:
            if all(r.inherited for candidate in candidates.values() for some in candidate.values() for r in some):
                if rule not in (VALIDATION, LAST):
                    raise _LackingError(f"its candidate was selected by {VALIDATION}, with another seed")
            elif len(candidates) < candidate_counts[key[0]]:
                raise _LackingError(f"{len(candidates)} of {candidate_counts[key[0]]} candidates")
            selection.append(_choose(candidates, rule, LAST if rule == LAST else weights))
        except _LackingError as error:
            method, target, seed = key
            lacking.append(f"{method}, target {target}, seed {seed}: {error}")
    return Selection(tuple(selection), tuple(lacking))


class _LackingError(Exception):
    """Records of one method, target and seed are missing; the message states which."""


def _by_run(records: Sequence[Record]) -> dict[RunKey, dict[str, Candidate]]:
    runs: dict[RunKey, dict[str, Candidate]] = {}
    for record in records:
        candidates = runs.setdefault((record.method, record.target, record.seed), {})
        candidates.setdefault(candidate_key(record.candidate), {}).setdefault(record.crossed, []).append(record)
    return runs


def _choose(candidates: Mapping[str, Candidate], rule: str, weights: str | None) -> Record:
    """Return the record of the best candidate; of equal candidates, the first in the order of their JSON."""
    mains = {key: _with_weights(candidates[key], None, weights) for key in sorted(candidates)}
    if len(mains) == 1:
        return next(iter(mains.values()))
    scores: Mapping[str, Callable[[str], float]] = {
        LODO: lambda key: _crossed(candidates[key], mains[key], weights),
        ORACLE: lambda key: mains[key].test.accuracy,
    }
    score = scores.get(rule, lambda key: mains[key].validation_accuracy)
    return mains[max(mains, key=score)]


def _crossed(candidate: Candidate, main: Record, weights: str | None) -> float:
    """Return the mean accuracy on source domains that were held out in turn."""
    if absent := [domain for domain in sorted(main.validation) if domain not in candidate]:
        raise _LackingError(f"no crossed run without {', '.join(absent)} for {candidate_key(main.candidate)}")
    return fmean(_with_weights(candidate, domain, weights).test.accuracy for domain in main.validation)


def _with_weights(candidate: Candidate, crossed: str | None, weights: str | None) -> Record:
    records = candidate.get(crossed, [])
    if not records:
        raise _LackingError("only crossed runs, not the one that is tested on the target")
    uses_saved = weights is None or records[0].method == ZERO_SHOT
    fitting = [record for record in records if (record.saved if uses_saved else record.weights == weights)]
    if not fitting:
        names = ", ".join(sorted(record.weights for record in records))
        raise _LackingError(f"no {'saved' if uses_saved else weights} weights, there are {names or 'none'}")
    if len(fitting) > 1:
        one = fitting[0]
        job = f"{one.method}, target {one.target}, seed {one.seed}, {candidate_key(one.candidate)}"
        raise RunError(
            "There are two records of the same weights of the same job.",
            expected="each job once",
            found=f"{job}: {len(fitting)} records",
            next_step="read each benchmark folder once, and grids with different settings under different labels",
        )
    return fitting[0]
