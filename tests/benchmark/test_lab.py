"""The experiment bench trains like vl2v: with the same losses, batches, optimiser and averages."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from lab_parts.bench import Runner
from lab_parts.dataset import Dataset, Teacher
from lab_parts.goals import Goals, make_goals
from lab_parts.objective import Shape, Step, Tables, objective
from lab_parts.schedules import averaging, learning_rate, rows_of
from lab_parts.slot import Engine, Network, Schedule, Slot, adam_rates, mean_from
from lab_parts.training import Running, SharedData
from lab_parts.variant import Job, Variant, read_lines, read_variants, removals
from vl2v.data.batches import Streams
from vl2v.data.splits import domainbed_holdout
from vl2v.method.baselines.kd import softened_divergence
from vl2v.method.loop import adam
from vl2v.method.loss import dual_loss

CPU = torch.device("cpu")
CLASSES = ("cat", "dog", "owl")
TEMPLATES = ("{}", "a photo of a {}", "a sketch of a {}", "a cartoon of a {}")


def dataset(each: int = 20, side: int = 20) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    count = 4 * each
    labels = np.tile(np.sort(np.arange(each) % 3), 4)
    texts = [t.replace("{}", c).replace(" a owl", " an owl") for t in TEMPLATES for c in CLASSES]
    embeddings = F.normalize(torch.randn(len(texts), 8, generator=generator), dim=-1)
    images = F.normalize(embeddings[labels] + 0.3 * torch.randn(count, 8, generator=generator), dim=-1)
    pixels = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    teacher = Teacher(images, tuple(texts), embeddings, 20.0, "{}")
    domains = np.repeat(np.arange(4), each)
    return Dataset("tiny", pixels, labels, domains, CLASSES, ("a", "b", "c", "d"), {"t": teacher})


def goals_of(**settings: object) -> tuple[Variant, Goals]:
    variant = Variant(name="v", batch=6, **settings)  # type: ignore[arg-type]
    return variant, make_goals(Job(variant, "tiny", "t", (3,), 0), dataset())


def loss_of(variant: Variant, goals: Goals, out: Tensor, rows: Tensor) -> Tensor:
    step = Step(rows, torch.arange(len(rows)), torch.ones(len(rows)), torch.zeros_like(rows))
    shape = Shape(variant.linear, 0 if variant.bank else -1)
    features = torch.ones(len(rows), 4)
    return objective(out, features, features, torch.tensor(0.0), step, Tables.of(goals, variant), shape)


def test_the_dual_loss_is_that_of_vl2v_with_and_without_labels() -> None:
    rows = torch.tensor([0, 7, 25, 31, 44, 55])
    out = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    for few in (-1, 1):
        variant, goals = goals_of(image_weight=0.3, few=few)
        labelled = goals.labelled[rows].bool()
        wanted = dual_loss(out, goals.targets[rows], goals.head[goals.labels[rows]], 0.3, labelled)
        assert loss_of(variant, goals, out, rows) == pytest.approx(float(wanted), abs=1e-6)


def test_the_divergence_is_that_of_naive_distillation() -> None:
    variant, goals = goals_of(method="kd")
    rows = torch.from_numpy(goals.groups[1][:6])  # of the training part: all have labels
    out = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    divergence = softened_divergence(out, goals.teacher_logits[rows], 2.0)
    wanted = 0.5 * F.cross_entropy(out, goals.labels[rows]) + 0.5 * divergence
    assert loss_of(variant, goals, out, rows) == pytest.approx(float(wanted), abs=1e-5)
    erm, goals = goals_of(method="erm")
    assert loss_of(erm, goals, out, rows) == pytest.approx(float(F.cross_entropy(out, goals.labels[rows])), abs=1e-6)


def test_mixed_images_have_mixed_targets() -> None:
    variant, goals = goals_of(image_weight=0.5)
    rows, partner, share = torch.tensor([0, 25]), torch.tensor([1, 0]), torch.tensor([0.7, 1.0])
    out = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    features = torch.ones(2, 4)
    step = Step(rows, partner, share, torch.zeros_like(rows))
    loss = objective(out, features, features, torch.tensor(0.0), step, Tables.of(goals, variant), Shape(False, -1))
    text = goals.head[goals.labels[rows]]
    images = torch.stack([0.7 * goals.targets[0] + 0.3 * goals.targets[25], goals.targets[25]])
    texts = torch.stack([0.7 * text[0] + 0.3 * text[1], text[1]])
    assert loss == pytest.approx(float(dual_loss(out, images, texts)), abs=1e-6)


def test_batches_are_those_of_vl2v() -> None:
    streams = Streams((np.arange(10, 17), np.arange(40, 43)), (4, 5), 11)
    all_rows = rows_of(streams, 9)
    assert all(np.array_equal(all_rows[step], streams.draw(step).rows) for step in range(9))


def test_the_split_is_that_of_vl2v_and_removed_domains_are_not_trained_on() -> None:
    variant, goals = goals_of()
    trained = np.concatenate(goals.groups)
    assert not np.isin(trained, goals.test["d"]).any()
    training, validation = domainbed_holdout(20, 0, 1)
    assert np.array_equal(goals.groups[1], 20 + training)
    assert np.array_equal(goals.validation["b"], 20 + validation)
    pair = make_goals(Job(variant, "tiny", "t", (0, 2), 0), dataset())
    assert set(pair.test) == {"a", "c"}
    assert set(pair.validation) == {"b", "d"}


def test_steps_are_those_of_adam_and_the_average_is_the_mean() -> None:
    variant, goals = goals_of()
    features = torch.randn(80, 5, generator=torch.Generator().manual_seed(2))
    slot = Slot(None, features, goals, variant, Engine(CPU, chunk=7), 0)
    layer = nn.Linear(5, 8)
    start = torch.cat([layer.weight.detach().flatten(), layer.bias.detach(), torch.zeros(1)])
    streams = Streams(goals.groups, goals.shares, 3)
    rows = torch.from_numpy(rows_of(streams, 7))
    flat = torch.arange(6).expand(7, 6)
    ones, styles = torch.ones(7, 6), torch.zeros_like(rows)
    schedule = Schedule(rows, flat, ones, styles, adam_rates([1e-2] * 7), mean_from(7, 4))
    for _ in range(2):  # the second job in a slot is independent of the first
        slot.begin(goals, variant, start, (1.0, 0.0))
        slot.load(schedule, 0, 7)
        slot.run(7)
    optimizer, seen = adam(layer.parameters(), 1e-2), []
    for step in range(7):
        part = rows[step]
        loss = dual_loss(layer(features[part]), goals.targets[part], goals.head[goals.labels[part]])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seen.append(torch.cat([layer.weight.detach().flatten(), layer.bias.detach()]))
    assert torch.allclose(slot.flat[:-1], seen[-1], atol=1e-5)
    assert torch.allclose(slot.average[:-1], torch.stack(seen[4:]).mean(0), atol=1e-5)
    assert slot.flat[-1] == 0  # the gain had no rate


class Tiny(nn.Module):
    """A backbone with batch norm whose statistics must not change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, 3, S, S] to [B, 6]."""
        features: Tensor = self.norm(self.conv(inputs)).relu().mean((2, 3))
        return features


class TinyBench:
    """Replaces `Bench` with a tiny network."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        engine = Engine(CPU, chunk=4)
        self.data, network = dataset(), Network(Tiny().eval(), engine)
        with torch.no_grad():
            features = network.eager(network.views(network.start), self.data.pixels)
        self.shared_data, self.free = SharedData(self.data, network, features, self.data.pixels, engine), {"k": []}  # type: ignore[var-annotated]

    def start(self, job: Job):  # type: ignore[no-untyped-def]
        """See `Bench.start`."""
        goals = make_goals(job, self.data)
        running = Running(job, self.shared_data.slot(job, goals), goals, self.shared_data)
        return running, running.run(), "k"


EVERYTHING = Variant(
    name="everything", batch=6, steps=9, align_steps=10, lr=1e-3, style=0.4, corrupt=0.4, mixup=0.3, cutmix=1.0, kl=0.3,
    ce=0.1, learn_scale=True, bank=0.5, bank_top=5, centre=0.5, steer=0.5, trust_low=0.2, adapt=1.0, feature=0.1,
    l2sp=1e-3, train_projection=True, few=2, wise_ft=(0.5,), soup=2, corrupted_test=True,
    temperatures=True,
)  # fmt: skip


def test_every_kind_of_job_runs_once_and_is_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = replace(EVERYTHING, mixup=0, cutmix=0, few=-1, soup=1, wise_ft=(), corrupted_test=False)
    variants = [
        EVERYTHING,
        replace(plain, name="valley", average="swad", steps=24),
        replace(plain, name="kd", method="kd", bank=0, feature=0),
        replace(plain, name="none", few=0, image_weight=1.0, average="ema"),
        replace(Variant(name="held"), batch=6, steps=3, align="ridge", held_classes=("dog",)),
    ]
    jobs = [Job(v, "tiny", "t", removed, 0) for v in variants for removed in ((3,), (0, 1))]
    out = tmp_path / "results.jsonl"
    for _ in range(2):
        Runner(TinyBench(), out, at_once=3).run(jobs)  # type: ignore[arg-type]
    assert "10 jobs to do, 0 done before" in capsys.readouterr().out
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["key"] for line in lines} == {job.key for job in jobs}
    assert len(lines) == 10
    by_name = {line["variant"]: line for line in lines if line["removed"] == [3]}
    assert by_name["everything"]["gain"] != 1
    assert set(by_name["everything"]["corrupted"]) == {"blur", "noise", "darkness", "rotation", "blocks"}
    assert "0.5" in by_name["everything"]["wise_ft"]
    temperatures = by_name["everything"]["temperatures"]
    assert set(temperatures) == {"all", "hardest", "hardest style", "styles"}
    assert temperatures["hardest"]["temperature"] >= temperatures["all"]["temperature"]
    assert set(temperatures["all"]) == {"temperature", "a", "b", "c", "d"}
    assert {"seen", "unseen", "harmonic"} <= set(by_name["held"]["test"]["d"])
    assert by_name["kd"]["gain"] == 1


def test_two_runs_of_a_job_agree_and_do_not_depend_on_their_neighbours(tmp_path: Path) -> None:
    job = Job(replace(EVERYTHING, name="x", soup=1), "tiny", "t", (2,), 1)
    other = Job(replace(EVERYTHING, name="y", lr=1e-2), "tiny", "t", (1,), 2)
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    Runner(TinyBench(), alone).run([job])  # type: ignore[arg-type]
    Runner(TinyBench(), beside, at_once=2).run([other, job])  # type: ignore[arg-type]
    first, second = (
        next(line for line in map(json.loads, file.read_text().splitlines()) if line["variant"] == "x")
        for file in (alone, beside)
    )
    assert first["test"] == second["test"]
    assert first["train_loss"] == second["train_loss"]


def test_the_job_of_an_incomplete_line_is_repeated(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    out.write_text('{"key": "a/b/c/0/1", "x": 1}\n{"key": "a/b/c/0/2"')
    assert {line["key"] for line in read_lines([out])} == {"a/b/c/0/1"}


def test_learning_rates_and_averages_follow_their_schedules() -> None:
    variant = Variant(name="v", lr=1.0, steps=100, warmup=9, schedule="cosine")
    assert learning_rate(variant, 0) == pytest.approx(0.1)
    assert learning_rate(variant, 9) == pytest.approx(1.0)
    assert learning_rate(variant, 99) < 0.01
    assert averaging(replace(variant, average_from=0.5))[[49, 50, 51]].tolist() == [0, 1, 0.5]
    assert averaging(replace(variant, average="last"))[-1] == 1


def test_a_variant_inherits_its_base_and_pairs_are_found_in_both_orders(tmp_path: Path) -> None:
    file = tmp_path / "v.json"
    file.write_text('{"one": {"lr": 0.1, "wise_ft": [0.5]}, "two": {"base": "one", "steps": 7}}')
    two = read_variants(file)["two"]
    assert (two.name, two.lr, two.steps, two.wise_ft) == ("two", 0.1, 7, (0.5,))
    assert removals(4, "leave") == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert removals(4, "target", (2,)) == [(2,)]


def test_the_last_layer_is_fitted_again_to_the_trained_features(tmp_path: Path) -> None:
    base = Variant(name="dual", batch=6, steps=6, align_steps=2, refit=1.0)
    few = replace(base, name="few", few=1, pseudo_labels=0.5, test_sides=(16,))
    variants = [base, replace(base, name="kd", method="kd"), few]
    out = tmp_path / "results.jsonl"
    Runner(TinyBench(), out).run([Job(v, "tiny", "t", (3,), 0) for v in variants])  # type: ignore[arg-type]
    for line in map(json.loads, out.read_text().splitlines()):
        ((size, scores),) = line["refit"].items()
        assert size == ("16" if line["variant"] == "few" else "own")
        before = line["sides"]["16"] if size == "16" else line
        assert scores != {key: before[key] for key in scores}


def test_the_refitted_projection_has_a_lower_loss_than_that_of_align() -> None:
    bench = TinyBench()
    variant, goals = goals_of(align_steps=2, refit=1.0)
    running, _, _ = bench.start(Job(variant, "tiny", "t", (3,), 0))
    rows = torch.from_numpy(np.concatenate(goals.groups))

    def loss(flat: Tensor) -> float:
        *_, weight, bias, _ = running.slot.leaves_of(flat)
        return float(loss_of(variant, goals, F.linear(bench.shared_data.features[rows], weight, bias), rows).detach())

    size = running.slot.layer_size
    running.slot.flat[-size:-1] = 0.1 * torch.randn(size - 1, generator=torch.Generator().manual_seed(3))
    assert loss(running._refitted(running.slot.flat, 0)) < loss(running.slot.flat) - 0.01


def test_images_change_their_size_during_training() -> None:
    bench = TinyBench()
    variant = Variant(name="v", batch=6, steps=6, align_steps=2, train_side=12, later_side=16)
    running, steps, _ = bench.start(Job(variant, "tiny", "t", (3,), 0))
    sizes, slot = set(), running.slot
    before = slot.run

    def run(count: int) -> None:
        sizes.add((running.steps, slot.pixels.shape[-1]))
        before(count)

    slot.run = run
    for _ in steps:
        pass
    assert sizes == {(0, 12), (4, 12), (5, 16)}  # four steps are prepared at once
