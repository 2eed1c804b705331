"""Edge cases of choosing the images to query: a budget that is too small for any, and a file that does not fit."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from test_choice import Workspace, config_of
from tiny_dataset import Bench, bench  # noqa: F401 - a fixture

from vl2v.errors import RunError
from vl2v.locations import StoragePaths
from vl2v.planning.choice import quoted_choice
from vl2v.planning.plan import plan_run
from vl2v.teacher.purchase.store import EmbeddingStore


@pytest.mark.parametrize("budget", ["0", "0.02", "0.22"])
def test_the_quote_of_a_budget_that_a_run_would_refuse(bench: Bench, tmp_path: Path, budget: str) -> None:
    paths = StoragePaths(bench.root / "cache", tmp_path / "s.sqlite")
    plan = plan_run(config_of(bench, budget), paths, with_student=False)
    with closing(EmbeddingStore(paths.store)) as store:
        estimate = quoted_choice(plan, store).quote
    assert estimate.choice.startswith("the budget is too small for a run, which needs at least 0.23 USD: 2 images")
    assert estimate.cost == plan.quote.cost


@pytest.mark.parametrize("content", [[], {"candidates": 0, "stored": 0, "images": []}])
def test_a_damaged_file_is_described_in_words(bench: Bench, tmp_path: Path, content: Any) -> None:
    workspace = Workspace(bench, tmp_path)
    workspace.folder.queries_file.write_text(json.dumps(content))
    with pytest.raises(RunError) as caught:
        workspace.plan()
    assert "pydantic" not in str(caught.value)


def test_images_that_are_not_in_the_data_are_not_queried(bench: Bench, tmp_path: Path) -> None:
    workspace = Workspace(bench, tmp_path)
    content = {"candidates": 2, "stored": 0, "images": ["00" * 32, "01" * 32]}
    workspace.folder.queries_file.write_text(json.dumps(content))
    with pytest.raises(RunError, match="not those of the data") as caught:
        workspace.plan()
    assert caught.value.found == "2 that are not"
