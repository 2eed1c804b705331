"""The values behind the figures of a report agree with a computation by hand."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import combinations

import numpy as np
import pytest
from made_run import DOMAINS, EACH, Made, make_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from vl2v.analysis.intervals import wilson
from vl2v.evaluation.evaluation import IN_DOMAIN
from vl2v.formatting import duration, exact, money, percent, shortened, size
from vl2v.reports import figures
from vl2v.reports.calibration import Rejection
from vl2v.reports.drawing import WIDTH
from vl2v.reports.figures import learning_panels, rejection_panel
from vl2v.reports.learning import DISTILL, StageCurve, learning_curves, smoothed
from vl2v.reports.maps import principal_axes
from vl2v.reports.prediction_sections import SHOWN
from vl2v.reports.run import write_run_report
from vl2v.trust.rejection import RiskCoverage, Threshold


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = make_run(tmp_path_factory.mktemp("values"))
    write_run_report(made.folder, made.folder / "none.sqlite")
    return made


def values(made: Made, name: str) -> list[dict[str, str]]:
    with (made.folder / "report" / f"{name}.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_wilson_interval_has_its_published_values() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_accuracy_is_computed_from_the_predictions(made: Made) -> None:
    rows = {row["domain"]: row for row in values(made, "accuracy")}
    assert list(rows) == list(DOMAINS)
    for domain, row in rows.items():
        right = int(made.right[made.domain == domain].sum())
        assert float(row["student"]) == right / EACH
        low, high = wilson(right, EACH)
        assert (float(row["student_low"]), float(row["student_high"])) == pytest.approx((low, high))
        assert row["role"] == DOMAINS[domain]


def test_confusion_counts_every_image_once(made: Made) -> None:
    rows = values(made, "confusion")
    for role in ("in-domain", "out-of-domain"):
        chosen = made.role == role
        counts = {(r["true"], r["predicted"]): int(r["images"]) for r in rows if r["role"] == role}
        expected: dict[tuple[str, str], int] = {}
        for true, answer in zip(made.label[chosen], made.student[chosen].argmax(axis=1), strict=True):
            key = made.classes[true], made.classes[answer]
            expected[key] = expected.get(key, 0) + 1
        assert counts == expected
        shares = [float(r["share_of_true"]) for r in rows if r["role"] == role and r["true"] == "cat"]
        assert sum(shares) == pytest.approx(1)


def test_reliability_and_rejection_agree_with_the_predictions(made: Made) -> None:
    held_out = made.role == "out-of-domain"
    rows = [r for r in values(made, "reliability") if r["role"] == "out-of-domain" and float(r["temperature"]) == 1]
    assert sum(int(r["images"]) for r in rows) == held_out.sum()
    right = sum(float(r["accuracy"]) * int(r["images"]) for r in rows)
    assert right == pytest.approx(made.right[held_out].sum())
    powers = np.exp(made.student.astype(np.float64)[held_out])
    confidence = (powers / powers.sum(axis=1, keepdims=True)).max(axis=1)
    mean = sum(float(r["mean_confidence"]) * int(r["images"]) for r in rows) / held_out.sum()
    assert mean == pytest.approx(confidence.mean(), abs=1e-6)
    last = [r for r in values(made, "risk_coverage") if r["role"] == "out-of-domain"][-1]
    assert (float(last["coverage"]), float(last["risk"])) == pytest.approx((1, 1 - made.right[held_out].mean()))
    assert {r["aimed_coverage"] for r in values(made, "thresholds")} >= {"0.99", "0.95", "0.9", "0.8"}


def test_mistakes_are_sorted_by_confidence(made: Made) -> None:
    for role in ("in-domain", "out-of-domain"):
        rows = [r for r in values(made, "mistakes") if r["role"] == role]
        assert len(rows) == min(8, int((~made.right[made.role == role]).sum()))
        assert all(r["true"] != r["predicted"] for r in rows)
        sure = [float(r["confidence"]) for r in rows]
        assert sure == sorted(sure, reverse=True)


def test_curves_mark_the_averaged_window(made: Made) -> None:
    rows = [r for r in values(made, "validation") if r["stage"] == "distill"]
    assert {int(r["step"]): int(r["in_swad_window"]) for r in rows} == {0: 0, 4: 1, 8: 1, 12: 1, 16: 0}
    assert float(rows[-1]["accuracy ink"]) == pytest.approx(0.66)
    losses = [r for r in values(made, "training_loss") if r["stage"] == "align"]
    assert [int(r["step"]) for r in losses] == list(range(17))


def test_a_run_without_a_loss_valley_has_no_window() -> None:
    line = {"stage": "distill", "step": 0, "losses": [1.0], "val_loss": 1.0, "domains": {"ink": {"accuracy": 0.5}}}
    (curve,) = learning_curves([line], {"converged_at": None, "dead_at": None})
    assert curve.window is None
    assert curve.averaged
    assert smoothed([2.0] * 100) == pytest.approx([2.0] * 100)


def test_axes_of_a_perfect_student_have_no_accuracy_above_one_and_no_repeated_label() -> None:
    curve = StageCurve(DISTILL, (1.0, 0.5), (0, 1), (1.0, 0.5), {"ink": (1.0, 1.0)}, None, True)
    accuracy = learning_panels([curve], ["Distill"])[1].svg
    assert "100%" in accuracy
    assert not re.search(r"10[1-9]%", accuracy)
    coverage = np.linspace(0.01, 1, 100)
    rejection = Rejection(IN_DOMAIN, RiskCoverage(coverage, np.zeros(100), coverage[::-1]), ())
    labels = re.findall(r">(\d+%)<", rejection_panel([rejection, rejection], ()).svg)
    assert labels.count("1%") == labels.count("2%") == 1


def test_the_map_shows_the_axes_of_greatest_variance(made: Made) -> None:
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(50, 6)) * (9, 4, 0.1, 0.1, 0.1, 0.1)
    _, axes, explained = principal_axes(rows)
    assert np.abs(np.diag(axes[:2])).min() > 0.95
    assert explained > 0.99
    rows_of = {(r["stage"], r["kind"]) for r in values(made, "embedding_map")}
    assert ("features", "class name") not in rows_of, "before Align there is no space in common"
    assert ("distilled", "class name") in rows_of
    assert ("teacher", "image") not in rows_of


def test_cost_per_million_images_is_the_stated_price(made: Made) -> None:
    rows = {r["what"]: r for r in values(made, "student_against_teacher")}
    assert float(rows["cost per million images, USD"]["teacher"]) == 500
    assert int(rows["parameters"]["student"]) > 0
    assert float(rows["images per second, batch 32"]["student"]) > 0


def test_numbers_are_formatted_for_readers() -> None:
    assert [percent(share) for share in (0.8911, None, float("nan"))] == ["89.1%", "–", "–"]
    assert money(0, "USD") == "0.00 USD"
    assert money(1234.5, "EUR") == "1,234.50 EUR"
    assert money(0.00482, "USD") == "0.0048 USD"
    amounts = ("0", "0E-12", "0.900000", "12", "1E+1", "0.000480")
    assert [exact(Decimal(text)) for text in amounts] == ["0", "0.00", "0.90", "12", "10", "0.00048"]
    assert [duration(s) for s in (5, 600, 7300, 1e6)] == ["5.0 s", "10.0 min", "2.0 h", "11.6 days"]
    assert shortened("a" * 30, 9) == "aaaaaa…aa"


def test_an_estimated_duration_is_rounded() -> None:
    seconds = (0.2, 45.4, 119, 130, 5400, 9000)
    assert [duration(s, rounded=True) for s in seconds] == ["1 s", "45 s", "119 s", "2 min", "90 min", "2.5 h"]


def test_sizes_have_units() -> None:
    texts = [size(n) for n in (0, 999, 1000, 174_167_459, 2.5e9, 3e13)]
    assert texts == ["0 B", "999 B", "1.0 kB", "174.2 MB", "2.5 GB", "30.0 TB"]


def labels_of(monkeypatch: pytest.MonkeyPatch, coverages: Sequence[float], risks: Sequence[float]) -> list[Text]:
    """The labels of thresholds in the figure of rejection, drawn as in a report."""
    thresholds = tuple(Threshold(t, 0.5, *at) for t, at in zip(SHOWN, zip(coverages, risks, strict=True), strict=True))
    curve = RiskCoverage(np.array([0.1, 1.0]), np.array([0.0, 0.4]), np.array([1.0, 0.0]))
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    monkeypatch.setattr(figures, "panel", lambda name, title, alt, draw, height: draw(axes))
    figures.rejection_panel([Rejection("in-domain", curve, thresholds)], SHOWN)
    figure.draw_without_rendering()
    return [text for text in axes.texts if text.get_text()]


@pytest.mark.parametrize(
    ("coverages", "risks", "labels"),
    [
        ((0.98, 0.95, 0.9, 0.8), (0.15, 0.145, 0.14, 0.13), {"80, 90, 95, 99%"}),
        ((1.0, 1.0, 0.95, 0.84), (0.12, 0.12, 0.12, 0.08), {"90, 95, 99%", "80%"}),
        ((0.9, 0.7, 0.5, 0.3), (0.3, 0.2, 0.1, 0.05), {"99%", "95%", "90%", "80%"}),
        ((0.9, 0.9, 0.9, 0.9), (0.3, 0.2, 0.1, 0.05), {"99%", "95%", "90%", "80%"}),
        ((0.5, 0.5, 0.5, 0.5), (0.1, 0.1, 0.1, 0.1), {"80, 90, 95, 99%"}),
    ],
)
def test_labels_of_thresholds_do_not_overlap(
    monkeypatch: pytest.MonkeyPatch, coverages: Sequence[float], risks: Sequence[float], labels: set[str]
) -> None:
    found = labels_of(monkeypatch, coverages, risks)
    assert {text.get_text() for text in found} == labels
    boxes = [text.get_window_extent() for text in found]
    assert not any(one.overlaps(two) for one, two in combinations(boxes, 2))
