"""Precision and recall of `vl2v data suspects` on PACS with 5% of the labels flipped.

    python benchmarks/suspects.py --scratch /tmp/suspects

The images, the simulated vendor and the student come from the maintainers' folder (see `common.shared`). The labels of
all four domains are flipped to another class at random, with three seeds. Teacher and cross-validated linear probe
judge them as in the command. As a cheap proxy for training, a linear probe on the frozen features is then fitted with
the flipped labels, without the suspects, and with the original labels, and tested on the original labels of each domain
in turn, which is left out of the fit. No network is trained.
"""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from common import circumstances, keep, need_shared, scratch_option, spread
from pacs_dataset import link_images, student, vectors_file
from vl2v.analysis.frozen import frozen_features
from vl2v.analysis.probe import fit
from vl2v.analysis.suspects import check_labels, rejects
from vl2v.locations import StoragePaths
from vl2v.planning.plan import plan_run
from vl2v.progress import Silent
from vl2v.purchase import text_heads, zero_shot_logits
from vl2v.settings import make_config
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.ledger import Budget
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v_runtime.trust import softmax

SEEDS, FLIPPED, STRENGTH = (0, 1, 2), 0.05, 1.0


def prepared(scratch: Path, size: int = 128, prompts: str = "photo") -> dict[str, Any]:
    """Labels, domains, the vendor's embeddings, text head and probabilities, and features of the frozen student."""
    folder = need_shared()
    settings = {
        "data": {"root": str(link_images(folder, scratch))},
        "teacher": {"spec": f"file:{vectors_file(folder, scratch)}", "prompts": prompts},
        "student": {"spec": student(folder), "size": size},
        "device": "cpu",
    }
    plan = plan_run(make_config(None, settings), StoragePaths(scratch / "cache", scratch / "store.sqlite"))
    dataset = plan.dataset
    with closing(EmbeddingStore(plan.paths.store)) as store:
        buyer = Buyer(plan.teacher, store, Budget(None), "benchmark")
        buyer.texts(plan.requirements.prompts)
        buyer.images(dataset.digests, dataset.read, "benchmark")
        embeddings = store.images(plan.card, dataset.digests)
        head = text_heads(store.texts(plan.card, plan.requirements.prompts), plan.requirements.templates)
    features = frozen_features(plan, dataset.digests, Silent(), "features", keep=Accelerator(cpu=True))
    teacher = softmax(zero_shot_logits(embeddings, head, plan.card.logit_scale).astype(np.float64))
    return {"labels": dataset.labels, "domains": dataset.domain_of, "features": features, "teacher": teacher,
            "embeddings": embeddings, "head": head.numpy()}  # fmt: skip


def flipped(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The labels, `FLIPPED` of them changed to another class."""
    generator, classes = np.random.default_rng(seed), int(labels.max()) + 1
    chosen = generator.permutation(len(labels))[: round(FLIPPED * len(labels))]
    wrong = labels.copy()
    wrong[chosen] = (labels[chosen] + generator.integers(1, classes, len(chosen))) % classes
    return wrong


def quality(suspects: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> dict[str, float]:
    """Precision and recall of a selection."""
    both = int((suspects & wrong).sum())
    return {
        "precision": both / max(int(suspects.sum()), 1),
        "recall": both / int(wrong.sum()),
        "found": int(suspects.sum()),
    }


def unseen_accuracy(m: dict[str, Any], labels: NDArray[np.int64], rows: NDArray[np.bool_]) -> float:
    """Mean accuracy of a linear probe on each domain, on true labels, fitted with `labels` of the other domains."""
    targets, accuracies = np.eye(int(m["labels"].max()) + 1), []
    for domain in np.unique(m["domains"]):
        out = m["domains"] == domain
        ((weight, intercept),) = fit(m["features"][~out & rows], targets[labels[~out & rows]], [STRENGTH])
        accuracies.append(((m["features"][out] @ weight + intercept).argmax(axis=1) == m["labels"][out]).mean())
    return float(np.mean(accuracies))


def trial(m: dict[str, Any], seed: int) -> dict[str, Any]:
    """Flip, judge, drop and fit with one seed."""
    labels, started = flipped(m["labels"], seed), time.process_time()
    wrong, every = labels != m["labels"], np.ones(len(labels), bool)
    judgement = check_labels(m["teacher"], m["embeddings"], m["features"], labels)
    seconds = time.process_time() - started
    right = judgement.suggested == m["labels"]
    return {
        "both": quality(judgement.rejected, wrong),
        "teacher alone": quality(rejects(m["teacher"], labels), wrong),
        "suggestions right among the flipped that were found": float(right[judgement.rejected & wrong].mean()),
        "seconds": seconds,
        "probe on unseen domains": {
            "flipped labels": unseen_accuracy(m, labels, every),
            "without suspects": unseen_accuracy(m, labels, ~judgement.rejected),
            "original labels": unseen_accuracy(m, m["labels"], every),
        },
    }


def main() -> None:
    """Run all seeds and write the figures."""
    scratch = scratch_option(__doc__)
    torch.set_num_threads(1)
    m = prepared(scratch)
    trials = [trial(m, seed) for seed in SEEDS]
    original = check_labels(m["teacher"], m["embeddings"], m["features"], m["labels"]).rejected
    table = {f"{classifier} {what}": spread([t[classifier][what] for t in trials])
             for classifier in ("both", "teacher alone") for what in ("precision", "recall", "found")}  # fmt: skip
    table |= {name: spread([t["probe on unseen domains"][name] for t in trials])
              for name in trials[0]["probe on unseen domains"]}  # fmt: skip
    figures = {
        "circumstances": circumstances(SEEDS),
        "images": len(m["labels"]),
        "flipped share": FLIPPED,
        "suspects among the original labels": int(original.sum()),
        "summary": table,
        "trials": trials,
    }
    keep("suspects", figures)


if __name__ == "__main__":
    main()
