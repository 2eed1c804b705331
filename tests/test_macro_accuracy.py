"""Macro accuracy and the recall of each class agree with a computation by hand."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from vl2v.analysis.intervals import wilson
from vl2v.config import RunConfig
from vl2v.data.splits import Slots
from vl2v.evaluation.evaluation import DomainScore, Evaluation, domain_score
from vl2v.evaluation.features import scores
from vl2v.evaluation.metrics import metrics_line
from vl2v.evaluation.reference import TEACHER
from vl2v.evaluation.split import DomainPredictions, evaluation_of
from vl2v.json_files import write_json
from vl2v.method.evaluation import mean_over_domains, score
from vl2v.reports.run import write_run_report
from vl2v.runs.run_files import read_evaluation
from vl2v.tracking.run_tracking import values_of
from vl2v.validation import parse

sys.path.append(str(Path(__file__).parent / "report"))
from made_run import make_run

LABELS = np.array([0] * 8 + [1] * 2, np.int64)  # of three classes; the last has no image
ANSWERS = np.array([0] * 8 + [0, 1], np.int64)
LOGITS = np.eye(3, dtype=np.float32)[ANSWERS]
CLASSES = ("cat", "dog", "owl")


def evaluation(metric: str = "accuracy") -> Evaluation:
    part = DomainPredictions(
        "ink", "in-domain", [""] * 10, LABELS, LOGITS, None, np.eye(3, dtype=np.float32)[LABELS], classes=CLASSES
    )
    return evaluation_of([part], None, metric)  # type: ignore[arg-type]


def chunks(slots: Slots) -> Iterator[torch.Tensor]:
    return (torch.from_numpy(LOGITS[slots[start : start + 3]]) for start in range(0, len(slots), 3))


def text_of(evaluation: Evaluation) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(evaluation.table())
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_macro_accuracy_is_the_mean_of_the_classes_with_images() -> None:
    result = score(torch.from_numpy(LOGITS), torch.from_numpy(LABELS))
    assert (result.accuracy, result.count) == (0.9, 10)
    assert result.macro == pytest.approx(0.75)
    row = domain_score("ink", "in-domain", LOGITS, LABELS, None, CLASSES)
    assert row.student_macro == pytest.approx(0.75)
    assert {name: (one.images, one.student) for name, one in row.classes.items()} == {"cat": (8, 1.0), "dog": (2, 0.5)}


def test_validation_in_chunks_has_the_macro_accuracy_of_all_images() -> None:
    logits = torch.from_numpy(LOGITS)
    slots = np.arange(10)
    result = scores(chunks, {"ink": (slots, LABELS)}, 3)
    assert result["ink"] == score(logits, torch.from_numpy(LABELS))
    soft = np.eye(3, dtype=np.float32)[LABELS]
    assert scores(chunks, {"ink": (slots, soft)}, 3)["ink"].macro == 0.75
    line = metrics_line("distill", 4, [1.0], result, 0.1)
    assert line["val_macro"] == line["domains"]["ink"]["macro"] == 0.75
    assert values_of(line)["val_macro/ink"] == 0.75
    assert mean_over_domains([result["ink"], replace(result["ink"], macro=0.25)]).macro == 0.5


def test_the_file_has_macro_accuracy_and_recall_and_is_read_again(tmp_path: Path) -> None:
    result = evaluation("macro")
    file = tmp_path / "evaluation.json"
    write_json(file, result.to_dict())
    content = read_evaluation(file)
    assert content["metric"] == "macro"
    assert content["means"]["in_domain"]["student_macro"] == pytest.approx(0.75)
    assert content["domains"][0]["classes"]["dog"] == {"images": 2, "student": 0.5, "zero_shot": 1.0}
    assert Evaluation.from_dict(content) == result


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    old = {"domain": "ink", "role": "in-domain", "images": 3, "student": 0.5, "zero_shot": None}
    means = {"in_domain": {"zero_shot": None, "student": 0.5}}
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps({"domains": [old], "means": means}))
    result = Evaluation.from_dict(read_evaluation(file))
    assert result.rows == (DomainScore("ink", "in-domain", 3, 0.5),)
    assert result.mean("in-domain", "student_macro") is None
    assert " - " in text_of(replace(result, metric="macro"))


def test_the_printed_table_shows_the_metric() -> None:
    plain, macro = text_of(evaluation()), text_of(evaluation("macro"))
    assert "top-1 accuracy, percent" in plain
    assert "90.0" in plain
    assert "75.0" not in plain
    assert "macro accuracy, percent" in macro
    assert "75.0" in macro
    assert "90.0" not in macro
    assert "macro agreement with the teacher" in text_of(replace(evaluation("macro"), reference=TEACHER))


def test_the_metric_is_a_setting() -> None:
    values = {"data": {"root": "x"}, "teacher": {"spec": "offline:"}, "student": {"spec": "offline:"}}
    assert parse(RunConfig, values, "test").distill.metric == "accuracy"
    assert parse(RunConfig, values | {"distill": {"metric": "macro"}}, "test").distill.metric == "macro"


def test_the_report_has_the_recall_of_each_class(tmp_path: Path) -> None:
    made = make_run(tmp_path, embeddings=False)
    page = write_run_report(made.folder, made.folder / "none.sqlite").read_text()
    with (made.folder / "report" / "recall.csv").open(newline="") as handle:
        rows = {(row["role"], row["true"]): row for row in csv.DictReader(handle)}
    assert set(rows) == {(role, name) for role in ("in-domain", "out-of-domain") for name in made.classes}
    for (role, name), row in rows.items():
        of_class = (made.role == role) & (made.label == made.classes.index(name))
        right, images = int(made.right[of_class].sum()), int(of_class.sum())
        assert int(row["images"]) == images
        assert float(row["student"]) == pytest.approx(right / images)
        bounds = float(row["student_low"]), float(row["student_high"])
        assert bounds == pytest.approx(wilson(right, images))
        assert float(row["teacher"]) == pytest.approx((made.teacher.argmax(axis=1) == made.label)[of_class].mean())
    assert "Recall by class" in page
