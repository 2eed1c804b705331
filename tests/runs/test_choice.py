"""A budget that does not cover all images: the chosen images, the purchase, and the purchase of a resumed run."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator
from tiny_dataset import TINY, Bench, bench  # noqa: F401 - a fixture
from typer.testing import CliRunner

import vl2v
from vl2v.benchmark.protocol import Grid, Origin, jobs, make_variants
from vl2v.cli import app
from vl2v.commands.choosing import with_choice
from vl2v.commands.distill import run
from vl2v.config import RunConfig
from vl2v.errors import BudgetError, ConfigError, Interrupted, RunError
from vl2v.interrupts import stop_when
from vl2v.locations import StoragePaths
from vl2v.nested import merge
from vl2v.planning.choice import Candidates, Images, QuerySelection, narrowed
from vl2v.planning.plan import RunPlan, plan_run
from vl2v.progress import Silent
from vl2v.purchase import BoughtEmbeddings, BudgetAccount, ensure_affordable, export_embeddings, open_budget, purchase
from vl2v.runs.folder import RunFolder
from vl2v.schema import RepairConfig
from vl2v.settings import make_config
from vl2v.teacher.purchase.ledger import Ledger
from vl2v.teacher.purchase.store import EmbeddingStore

IMAGES = 48  # distinct training images, with one held-out domain
SETTINGS: dict[str, Any] = TINY | {
    "teacher": {"price_per_1000_images": "100", "price_per_1000_texts": "10"},
    "distill": {"steps": 4, "checkpoint_every": 2},
    "when_short": "choose",
}
BUDGET = "2.03"  # 20 images and 3 texts


def config_of(bench: Bench, budget: str | None = BUDGET, **changes: Any) -> RunConfig:
    settings = {
        "data": {"root": str(bench.data), "held_out": ("rose",)}, "teacher": {"spec": bench.teacher},
        "student": {"spec": bench.student}, "budget": budget, "recipe": "ood",
    }  # fmt: skip
    return make_config(None, merge(merge(SETTINGS, settings), changes))


class Workspace:
    """A run folder, a cache and a store."""

    def __init__(self, bench: Bench, root: Path) -> None:
        self.bench, self.folder = bench, RunFolder(root / "run")
        self.paths = StoragePaths(bench.root / "cache", root / "s.sqlite")
        self.folder.path.mkdir(exist_ok=True)

    def plan(self, budget: str | None = BUDGET, **changes: Any) -> RunPlan:
        """Return the plan after the choice."""
        plan = plan_run(config_of(self.bench, budget, **changes), self.paths)
        with closing(EmbeddingStore(self.paths.store)) as store:
            account = open_budget(plan, self._account, store)
            plan = with_choice(plan, account, store, self.folder, Accelerator(cpu=True), Silent())
            ensure_affordable(plan, account, self.folder.path)
        return plan

    @property
    def _account(self) -> BudgetAccount:
        return BudgetAccount.of_run(str(self.folder.path))

    def buy(self, plan: RunPlan) -> Decimal:
        """Buy what the plan requires and return the cost of all purchases in the ledger."""
        with closing(EmbeddingStore(self.paths.store)) as store:
            purchase(plan, open_budget(plan, self._account, store), store, str(self.folder.path), Silent())
            export_embeddings(plan, store, self.folder.work)
            return Ledger(store).spent()


@pytest.fixture
def workspace(bench: Bench, tmp_path: Path) -> Workspace:
    return Workspace(bench, tmp_path)


def test_the_budget_is_shared_equally_among_the_training_domains(workspace: Workspace) -> None:
    plan = workspace.plan()
    assert plan.queried is not None
    assert [int(plan.queried[group].sum()) for group in plan.examples.groups] == [10, 10]
    assert (plan.quote.image_queries, plan.quote.text_queries, plan.quote.cost) == (20, 3, Decimal(BUDGET))
    assert plan.teacher_usage()["image_queries"] == 20
    assert workspace.buy(plan) == Decimal(BUDGET)
    embeddings = BoughtEmbeddings.load(plan, workspace.folder.work)
    assert embeddings.training is not None
    assert (np.linalg.norm(embeddings.training, axis=1) > 0).tolist() == plan.queried.tolist()
    assert embeddings.evaluation is None


def test_a_resumed_run_buys_what_it_chose_with_any_later_budget(workspace: Workspace) -> None:
    first = workspace.plan()
    for budget in (BUDGET, "3.03", "100"):
        again = workspace.plan(budget)
        images, same = (plan.requirements.purposes["training", 0] for plan in (first, again))
        assert np.array_equal(images, same)
        assert again.quote.cost == Decimal(BUDGET)
    assert workspace.buy(workspace.plan()) == Decimal(BUDGET)
    assert workspace.plan("100").quote.cost == 0


def test_a_budget_that_is_lowered_below_the_choice_is_refused(workspace: Workspace) -> None:
    workspace.plan()
    with pytest.raises(BudgetError, match="does not cover"):
        workspace.plan("1.00")


def test_images_that_are_stored_are_used_for_free(workspace: Workspace, tmp_path: Path) -> None:
    workspace.buy(workspace.plan())
    other = Workspace(workspace.bench, tmp_path)
    other.folder = RunFolder(tmp_path / "another")
    other.folder.path.mkdir()
    plan = other.plan("0.50")
    choice = QuerySelection.read(other.folder.queries_file)
    assert choice is not None
    assert (len(choice.images), choice.stored, plan.quote.image_queries) == (25, 20, 5)
    assert "20 of them stored already" in choice.line
    assert other.buy(plan) == Decimal("2.53")


def test_the_new_images_of_a_repair_stay_queried(workspace: Workspace) -> None:
    data = {"unlabelled": str(workspace.bench.data / "rose")}
    plan = plan_run(config_of(workspace.bench, when_short="refuse", data=data), workspace.paths)
    repair = RepairConfig(run=workspace.folder.path, images=workspace.bench.data / "rose")
    plan = replace(plan, config=plan.config.model_copy(update={"repair": repair}))  # its last group
    with closing(EmbeddingStore(workspace.paths.store)) as store:
        training = Candidates.of(plan, store).training
        assert len(training.digests) == IMAGES
        fewer = narrowed(plan, QuerySelection(training.digests[:7], 0, IMAGES), store)
    assert fewer.queried is not None
    assert [int(fewer.queried[group].sum()) for group in fewer.examples.groups] == [7, 0, 30]
    assert fewer.quote.images == {"training": 7, "unlabelled": 30}


def test_images_without_labels_are_an_additional_domain(workspace: Workspace) -> None:
    """Unlabelled images that are not queried are left out; labelled images are not."""
    plan = workspace.plan(data={"labels_per_class": 5, "rest_unlabelled": True})
    assert plan.queried is not None
    *labelled, without = plan.examples.groups
    assert [int(plan.queried[group].sum()) for group in plan.examples.groups] == [7, 7, 6]
    assert (len(without), min(len(group) for group in labelled) > 7) == (6, True)
    assert plan.quote.images == {"training": 14, "unlabelled": 6}
    assert workspace.buy(plan) == Decimal(BUDGET)
    choice = QuerySelection.read(workspace.folder.queries_file)
    assert choice is not None
    assert choice.unlabelled == IMAGES - sum(map(len, labelled))
    assert "by their labels alone, or left out if they have none" in choice.line
    embeddings = BoughtEmbeddings.load(plan, workspace.folder.work)
    assert embeddings.training is not None
    assert (np.linalg.norm(embeddings.training[without], axis=1) > 0).all()


WITHOUT_LABELS = {
    "classes": ("blank", "bar", "zebra stripe"),
    "domain_folders": True,
    "layout_as_found": True,
    "held_out": (),
}


def test_without_labels_the_same_share_of_the_evaluation_images_is_queried(workspace: Workspace) -> None:
    plan = workspace.plan(data=WITHOUT_LABELS)
    assert plan.queried is not None
    assert [len(group) for group in plan.examples.groups] == [6, 5, 5]
    assert [len(rows) for rows in plan.split.validation.values()] == [2, 1, 1]  # of 18, next to 16 of 72
    assert plan.quote.images == {"training": 16, "validation": 4}
    assert plan.quote.cost == Decimal(BUDGET)
    assert workspace.buy(plan) == Decimal(BUDGET)
    embeddings = BoughtEmbeddings.load(plan, workspace.folder.work)
    assert embeddings.evaluation is not None
    assert (np.linalg.norm(embeddings.evaluation, axis=1) > 0).all()
    again = workspace.plan("100", data=WITHOUT_LABELS)
    assert again.split.evaluation_rows.tolist() == plan.split.evaluation_rows.tolist()
    assert again.quote.cost == 0
    choice = QuerySelection.read(workspace.folder.queries_file)
    assert choice is not None
    assert "The others are left out, and 4 evaluation images, drawn at random, are queried as well" in choice.line


def test_a_domain_without_any_embedding_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    """Stored images of one domain do not replace those of another one."""
    workspace.buy(workspace.plan())
    other = Workspace(workspace.bench, tmp_path)
    other.folder = RunFolder(tmp_path / "another")
    other.folder.path.mkdir()
    with pytest.raises(BudgetError, match="and without a label") as caught:
        other.plan("0.05", data={"unlabelled": str(workspace.bench.data / "rose")})
    assert "at least 0.1 USD, for 1 images" in str(caught.value)


def test_an_image_of_two_groups_belongs_to_the_smaller(workspace: Workspace) -> None:
    """Otherwise no image would be queried for an unlabelled group that is part of another group."""
    plan = plan_run(config_of(workspace.bench), workspace.paths)
    digests = plan.examples.digests
    with closing(EmbeddingStore(workspace.paths.store)) as store:
        images = Images.of(plan, store, [digests[:10], digests[4:7], digests[20:24]])
    assert np.bincount(images.groups).tolist() == [7, 3, 4]
    assert images.digests.tolist() == [*digests[:4].tolist(), *digests[7:10].tolist(), *digests[4:7].tolist(),
                                       *digests[20:24].tolist()]  # fmt: skip
    assert images.missing == 3


def test_without_labels_every_domain_needs_two_images(workspace: Workspace) -> None:
    with pytest.raises(BudgetError, match="a training and an evaluation image of every domain") as caught:
        workspace.plan("0.60", data=WITHOUT_LABELS)
    assert "at least 0.63 USD, for 6 images and 3 texts" in str(caught.value)
    assert workspace.plan("0.63", data=WITHOUT_LABELS).quote.images == {"training": 3, "validation": 3}


def test_a_repair_has_the_choice_of_the_run_that_it_repairs(workspace: Workspace, tmp_path: Path) -> None:
    first = workspace.plan()
    other = RunFolder(tmp_path / "repaired")
    other.path.mkdir()
    repair = RepairConfig(run=workspace.folder.path, images=tmp_path / "new.csv")
    new = {"unlabelled": str(workspace.bench.data / "rose")}  # as the new images, the last group
    plan = plan_run(config_of(workspace.bench, "100", data=new), workspace.paths)
    plan = replace(plan, config=plan.config.model_copy(update={"repair": repair}))
    with closing(EmbeddingStore(workspace.paths.store)) as store:
        budget = open_budget(plan, BudgetAccount.of_run("repaired"), store)
        again = with_choice(plan, budget, store, other, Accelerator(cpu=True), Silent())
    assert again.queried is not None
    assert first.queried is not None
    assert again.queried.tolist() == [*first.queried.tolist(), *[True] * 30]
    assert other.queries_file.read_bytes() == workspace.folder.queries_file.read_bytes()


def test_the_evaluation_images_are_dropped_first(workspace: Workspace) -> None:
    """Every training image is covered, but not the 42 of the evaluation."""
    plan = workspace.plan("5.00")
    assert plan.queried is None
    assert plan.quote.images == {"training": IMAGES}
    assert "evaluation images are not queried" in QuerySelection.read(workspace.folder.queries_file).line  # type: ignore[union-attr]


def test_a_budget_that_covers_everything_chooses_nothing(workspace: Workspace) -> None:
    plan = workspace.plan("9.03")
    assert (plan.queried, plan.quote.image_queries) == (None, 90)
    assert not workspace.folder.queries_file.exists()


def test_a_budget_without_an_image_of_every_domain_is_refused(workspace: Workspace) -> None:
    with pytest.raises(BudgetError) as caught:
        workspace.plan("0.20")
    assert "at least 0.23 USD" in str(caught.value)
    assert not workspace.folder.queries_file.exists()
    with pytest.raises(BudgetError, match="No budget"):
        workspace.plan(None)


def test_a_refusal_advises_how_to_buy_a_part(workspace: Workspace) -> None:
    with pytest.raises(BudgetError) as caught:
        workspace.plan(when_short="refuse")
    assert "--when-short choose" in str(caught.value)
    with pytest.raises(BudgetError) as caught:
        workspace.plan(when_short="refuse", teacher={"views": 2})
    assert "--when-short choose" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    ["{}", "[", '{"candidates": 2, "stored": 0, "images": ["00"]}', '{"candidates": 1, "stored": 2, "images": []}'],
)
def test_a_damaged_choice_is_an_error(workspace: Workspace, content: str) -> None:
    workspace.folder.queries_file.write_text(content)
    with pytest.raises(RunError, match="queries"):
        workspace.plan()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"labels_per_class": 2, "rest_unlabelled": True}, "image_weight": 1.0}, "image_weight 1"),
        ({"teacher": {"views": 3}}, "teacher.views must be 1, found 3"),
        ({"image_weight": 1.0}, "image_weight 1"),
        ({"method": "feature"}, "the method feature needs the embedding of every training image"),
        ({"method": "erm"}, "use --no-zero-shot"),
        ({"when_short": "guess"}, "when_short"),
    ],
)
def test_settings_that_need_every_embedding_are_refused(bench: Bench, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(bench, **changes)


def test_a_benchmark_is_refused() -> None:
    settings = {"data": {"root": "/somewhere"}, "teacher": {"spec": "offline:"}, "student": {"spec": "timm:resnet18"}}
    variants, domains = make_variants(("adip",), {}), ("art", "photo")
    grid = Grid(settings=settings | {"when_short": "choose"}, variants=variants, domains=domains, targets=domains)
    with pytest.raises(ConfigError, match="A benchmark cannot choose"):
        list(jobs(grid, Origin("data", "teacher", "student")))


def test_a_quote_counts_the_chosen_images(bench: Bench, tmp_path: Path) -> None:
    command = ["quote", str(bench.data), "--teacher", bench.teacher, "--held-out", "rose", "--store"]
    command += [str(tmp_path / "s.sqlite"), "--cache", str(bench.root / "cache"), "--price-per-1000-images", "100"]
    command += ["--price-per-1000-texts", "10", "--budget", BUDGET]
    full = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert (full["image_queries"], full["choice"]) == (90, None)
    part = json.loads(CliRunner().invoke(app, [*command, "--when-short", "choose", "--json"]).stdout)
    assert (part["image_queries"], part["cost"]) == (20, BUDGET)
    assert part["choice"].startswith(f"the budget covers 20 of {IMAGES} training images: a diverse set")


@pytest.mark.slow
def test_a_run_is_trained_on_all_images_and_resumed_with_the_same_weights(bench: Bench, tmp_path: Path) -> None:
    paths = StoragePaths(tmp_path / "cache", tmp_path / "s.sqlite")

    def distill(out: Path, **more: Any) -> Any:
        return vl2v.distill(
            bench.data, bench.teacher, bench.student, out=out, held_out=["rose"], settings=SETTINGS, storage=paths,
            budget=BUDGET, **more,
        )  # fmt: skip

    full = distill(tmp_path / "whole")
    assert (full.image_queries, full.text_queries) == (20, 3)
    evaluation = json.loads((tmp_path / "whole" / "evaluation.json").read_text())
    assert evaluation["asked"]["image_queries"] == 20
    paths = StoragePaths(tmp_path / "cache", tmp_path / "again.sqlite")
    with stop_when(lambda: True), pytest.raises(Interrupted):
        distill(tmp_path / "cut")
    resumed = vl2v.distill(out=tmp_path / "cut", resume=True, budget="50", storage=paths)
    assert resumed is not None
    assert (resumed.image_queries, resumed.text_queries) == (20, 3)
    for name in ("whole", "cut"):
        assert (tmp_path / name / "queries.json").is_file()
    one, other = ((tmp_path / name / "student" / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert one == other


@pytest.mark.slow
@pytest.mark.parametrize(
    "data", [WITHOUT_LABELS, {"held_out": ("rose",), "labels_per_class": 5, "rest_unlabelled": True}]
)
def test_a_run_without_labels_is_trained_on_what_it_queried(bench: Bench, tmp_path: Path, data: dict[str, Any]) -> None:
    paths = StoragePaths(tmp_path / "cache", tmp_path / "s.sqlite")
    config = config_of(bench, data=data)
    done = run(config, tmp_path / "run", storage=paths, report=False)
    assert done is not None
    assert (done.image_queries, done.text_queries) == (20, 3)
    reference = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    choice = QuerySelection.read(tmp_path / "run" / "queries.json")
    assert choice is not None
    images = [row["images"] for row in reference["domains"] if row["role"] == "in-domain"]
    assert sum(images) == (len(choice.evaluation) or 6)


def test_the_views_of_a_run_have_the_digests_of_its_examples(bench: Bench, tmp_path: Path) -> None:
    changes = {"teacher": {"views": 2}, "when_short": "refuse"}
    examples = plan_run(
        config_of(bench, None, **changes), StoragePaths(tmp_path / "cache", tmp_path / "s.sqlite")
    ).examples
    read = [hashlib.sha256(examples.view(i).read()).digest() for i in range(len(examples.digests))]
    assert [examples.view(i).view for i in range(len(read))] == examples.views.tolist()
    assert read == [bytes(digest) for digest in examples.digests]
