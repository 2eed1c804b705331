"""Images bought by batch jobs, from a server that imitates the documented API; the vendor itself was not called."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gemini_vendor import GeminiVendor, Job, gemini
from PIL import Image

from command_line import run_cli
from recorders import NoteRecorder
from vl2v.errors import BudgetError, TeacherError
from vl2v.planning.requirements import Requirements, make_quote
from vl2v.progress import Silent, Vl2vWarning
from vl2v.teacher.http.jobs import Refusal
from vl2v.teacher.http.uri import open_wire
from vl2v.teacher.http.vendors.gemini import Gemini
from vl2v.teacher.http.vendors.gemini_batch import GeminiBatch
from vl2v.teacher.purchase import job_buyer
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.image_set import ImageSet
from vl2v.teacher.purchase.ledger import Budget, Ledger
from vl2v.teacher.purchase.store import Digests, EmbeddingStore
from vl2v.teacher.registry import open_teacher

SPEC = "gemini:gemini-embedding-2#dimension=128"
PRICE = Decimal("0.00006")
BUSY = {"code": 14, "message": "overloaded"}
BAD = {"code": 3, "message": "Unable to process input image"}


def picture(i: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (40 * i, 255 - 40 * i, 7)).save(out, "PNG")
    return out.getvalue()


PICTURES = [picture(i) for i in range(5)]
DIGESTS: Digests = np.stack([np.frombuffer(hashlib.sha256(p).digest(), np.uint8) for p in PICTURES])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "test-key")
    monkeypatch.setattr(job_buyer, "FIRST", 0.001)
    monkeypatch.setattr(job_buyer, "LONGEST", 0.01)
    monkeypatch.setattr("vl2v.teacher.http.jobs.APPEAR", 0.01)


@contextmanager
def running_vendor(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[GeminiVendor]:
    vendor = GeminiVendor(**options)
    with gemini(vendor) as server:
        monkeypatch.setattr(Gemini, "base", server.url.removesuffix("/v1"))
        yield vendor


def buyer_of(
    store: EmbeddingStore, budget: str = "1", progress: Silent | None = None, run: str = "run", batch: bool = True
) -> Buyer:
    return Buyer(open_teacher(SPEC, batch_api=batch), store, Budget(Decimal(budget)), run, progress)


def buy(store: EmbeddingStore, digests: Digests = DIGESTS, **options: Any) -> int:
    return buyer_of(store, **options).images(digests, PICTURES.__getitem__, "training")


def check_stored(store: EmbeddingStore) -> None:
    embeddings = store.images(open_teacher(SPEC).describe(), DIGESTS)
    np.testing.assert_allclose(embeddings[:, 0] * 255, [40 * i for i in range(5)], atol=1e-3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddingStore]:
    with closing(EmbeddingStore(tmp_path / "s.sqlite")) as opened:
        yield opened


# The format


def test_the_request_has_the_documented_form() -> None:
    wire = open_wire(SPEC, batch_api=True)
    api = GeminiBatch(wire)
    content = {"parts": [{"inline_data": {"mime_type": "image/png", "data": base64.b64encode(PICTURES[0]).decode()}}]}
    request = {"model": "models/gemini-embedding-2", "content": content, "output_dimensionality": 128}
    assert json.loads(api.request("vl2v-x", PICTURES[:1])) == {
        "batch": {
            "display_name": "vl2v-x",
            "input_config": {"requests": {"requests": [{"request": request, "metadata": {"key": "0"}}]}},
        }
    }
    base = "https://generativelanguage.googleapis.com/v1beta"
    assert api.create_url == f"{base}/models/gemini-embedding-2:asyncBatchEmbedContent"
    assert api.job_url("batches/a1") == f"{base}/batches/a1"
    assert api.list_url("t/1") == f"{base}/batches?pageSize=1&pageToken=t%2F1"


def operation(state: str = "BATCH_STATE_SUCCEEDED", **more: Any) -> dict[str, Any]:
    return {"name": "batches/a1", "metadata": {"state": state, "displayName": "x"}} | more


ROWS: list[dict[str, Any]] = [{"response": {"embedding": {"values": [1.0]}}}, {"error": BUSY}]


@pytest.mark.parametrize(
    "output",
    [
        {"response": {"inlinedResponses": {"inlinedResponses": ROWS}}},
        {"response": {"inlinedResponses": ROWS}},
        {"response": {"inlinedEmbedContentResponses": {"inlinedResponses": ROWS}}},
        {"metadata": {"state": "JOB_STATE_SUCCEEDED", "output": {"inlinedResponses": {"inlinedResponses": ROWS}}}},
    ],
)
def test_results_are_read_where_guide_reference_and_clients_have_them(output: dict[str, Any]) -> None:
    state = GeminiBatch(open_wire(SPEC)).state(operation() | output, 2)
    assert state.answers == [[1.0], Refusal("overloaded", False)]


def test_results_are_matched_by_key_and_may_be_incomplete() -> None:
    api = GeminiBatch(open_wire(SPEC))
    keyed = [ROWS[0] | {"metadata": {"key": "1"}}, ROWS[1] | {"metadata": {"key": "0"}}]
    job_state = api.state(operation(response={"inlinedResponses": {"inlinedResponses": keyed}}), 2)
    assert job_state.answers == [Refusal("overloaded", False), [1.0]]
    for state in ("SUCCEEDED", "CANCELLED"):
        partial = operation(f"BATCH_STATE_{state}", response={"inlinedResponses": {"inlinedResponses": keyed[:1]}})
        assert api.state(partial, 2).answers == [Refusal("no result", False), [1.0]]
    for wrong in ([keyed[0], keyed[0]], [keyed[0], {**ROWS[1], "metadata": {"key": "2"}}]):
        with pytest.raises(ValueError, match="2 results for 2 requests, with duplicate or unknown keys"):
            api.state(operation(response={"inlinedResponses": {"inlinedResponses": wrong}}), 2)
    with pytest.raises(ValueError, match="another kind of name"):
        api.state(operation() | {"name": "batches/../x"}, 2)


@pytest.mark.parametrize(("code", "final"), [(3, True), (400, True), (13, False), (429, False), (503, False)])
def test_the_code_of_a_refusal_determines_whether_to_retry(code: int, final: bool) -> None:
    rows = [{"error": {"code": code, "message": "m"}}]
    state = GeminiBatch(open_wire(SPEC)).state(operation(response={"inlinedResponses": {"inlinedResponses": rows}}), 1)
    assert state.answers == [Refusal("m", final)]


@pytest.mark.parametrize("spec", ["voyage:voyage-multimodal-3", "gemini:gemini-embedding-2-preview", "offline:"])
def test_a_teacher_without_a_batch_api_is_refused(spec: str) -> None:
    with pytest.raises(TeacherError, match="batch API") as caught:
        open_teacher(spec, batch_api=True)
    assert "--batch-api" in caught.value.next_step


# Buying


def test_jobs_are_collected_and_share_the_store_with_single_requests(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GeminiBatch, "images", 2)
    progress = NoteRecorder()
    with running_vendor(monkeypatch) as vendor:
        assert buy(store, progress=progress) == 5
        assert [len(job.requests) for job in vendor.jobs] == [2, 2, 1]
        check_stored(store)
        entries = Ledger(store).entries()
        assert [(e.state, e.queries, e.cost) for e in entries] == [("kept", n, n * PRICE) for n in (2, 2, 1)]
        assert Ledger(store).spent() == vendor.billed * PRICE
        before = len(vendor.requests)
        assert buy(store, batch=False) == buy(store) == 0
        assert len(vendor.requests) == before
    first = [line for line in progress.lines if "batches/j0:" in line]
    assert first == [f"batch job batches/j0: {state} of 2 images done" for state in ("running, 0", "succeeded, 2")]


def test_parts_are_all_submitted_before_one_is_awaited(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_vendor(monkeypatch) as vendor:
        parts = [ImageSet(DIGESTS[s], PICTURES[s].__getitem__, "training") for s in (slice(0, 2), slice(2, 5))]
        buyer_of(store).all_images(parts)
        calls = [path.rpartition("/")[2] for _, path in vendor.requests]
    assert calls[:2] == ["gemini-embedding-2:asyncBatchEmbedContent"] * 2
    check_stored(store)


SCRIPT = """
import sys
import time
sys.path.insert(0, {tests!r})
import test_batch_jobs as t
from vl2v.teacher.http.vendors.gemini import Gemini
Gemini.base = {base!r}
t.buy(t.EmbeddingStore(t.Path({store!r})))
"""


@pytest.mark.system
def test_the_process_after_a_killed_one_collects_its_job(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[subprocess.Popen[bytes]] = []

    def kill(job: Job) -> None:
        if children:
            children.pop().kill()
            raise OSError

    with running_vendor(monkeypatch, on_create=kill) as vendor:
        folder = str(Path(__file__).parent)
        script = SCRIPT.format(tests=folder, base=Gemini.base, store=str(store.path))
        child = subprocess.Popen(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        )
        children.append(child)
        assert child.wait(60) == -signal.SIGKILL
        (pending,) = store.pending(open_teacher(SPEC).describe())
        assert (
            pending.key == f"job:{vendor.jobs[0].label}"
        )  # recorded before the job was created; its name was not received
        assert buy(store) == 5
        assert len(vendor.jobs) == 1
    check_stored(store)
    assert Ledger(store).spent() == vendor.billed * PRICE


def test_a_job_whose_creation_had_no_response_is_searched_for(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(job: Job) -> None:
        if len(vendor.jobs) == 2:
            raise OSError

    with running_vendor(monkeypatch, on_create=lose) as vendor:
        monkeypatch.setattr(GeminiBatch, "images", 2)
        assert buy(store) == 5
        assert len(vendor.jobs) == 3
    check_stored(store)
    assert Ledger(store).spent() == 5 * PRICE


def test_a_job_that_was_recorded_but_not_created_costs_nothing(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = open_teacher(SPEC).describe()
    store.open_entry(card, "run", "image", "training", 5, 5 * PRICE, key="job:vl2v-0", members=DIGESTS.tobytes())
    with running_vendor(monkeypatch) as vendor:
        buy(store)
        assert len(vendor.jobs) == 1
    assert [e.state for e in Ledger(store).entries()] == ["refused", "kept"]
    assert Ledger(store).spent() == 5 * PRICE


def test_ctrl_c_leaves_the_job_to_the_vendor(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with running_vendor(monkeypatch) as vendor:
        with monkeypatch.context() as patched:
            patched.setattr(time, "sleep", stop)
            with pytest.raises(KeyboardInterrupt, match="1 batch job continues at the vendor"):
                buy(store)
        card = open_teacher(SPEC).describe()
        store._db.execute("UPDATE ledger SET time = time - 90000")  # older than a key that a vendor remembers
        assert sum(job.cost for job in store.pending(card)) == 5 * PRICE
        with pytest.raises(TeacherError, match="5 of these images are in batch jobs") as caught:
            buy(store, batch=False)
        assert "repeat the command that submitted them" in caught.value.next_step
        assert buy(store, budget="0") == 5  # it was reserved at submission
        assert len(vendor.jobs) == 1
    check_stored(store)


def test_a_job_that_the_vendor_lists_late_is_not_created_again(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, searches = GeminiVendor._listed, []

    def late(self: GeminiVendor, path: str) -> dict[str, Any]:
        searches.append(path)
        return listed(self, path) if len(searches) > 1 else {}

    monkeypatch.setattr(GeminiVendor, "_listed", late)
    with running_vendor(monkeypatch) as vendor:
        buyer_of(store).submit([ImageSet(DIGESTS, PICTURES.__getitem__, "training")])
        (job,) = store.pending(open_teacher(SPEC).describe())
        store.set_key(job.entry, f"job:{vendor.jobs[0].label}")  # simulates a lost response
        assert buy(store) == 5
        assert (len(vendor.jobs), len(searches)) == (1, 2)
    assert Ledger(store).spent() == 5 * PRICE


@pytest.mark.parametrize("end", ["SUCCEEDED", "FAILED"])
def test_images_of_another_run_in_a_job_do_not_end_this_one(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """The vendor accepts one job at a time, so this run waits for the job of the other run and collects it."""
    options: dict[str, Any] = {"plan": lambda job, key: BAD if job == 1 else None}
    with running_vendor(monkeypatch, most=1, end=lambda job: end if job == 1 else "SUCCEEDED", **options) as vendor:
        monkeypatch.setattr(GeminiBatch, "jobs", 1)
        buyer_of(store, run="another").submit([ImageSet(DIGESTS[:2], PICTURES.__getitem__, "training")])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            image_set = ImageSet(DIGESTS[2:], PICTURES[2:].__getitem__, "training")
            assert buyer_of(store).images(image_set.digests, image_set.read, image_set.purpose) == 3
        assert [str(w.message) for w in caught if w.category is Vl2vWarning] == (
            ["batch job batches/j0 of other images ended without answers: failed"] if end == "FAILED" else []
        )
        assert len(vendor.jobs) == 2
    assert Ledger(store).spent("another") == 0
    assert Ledger(store).spent("run") == 3 * PRICE


def test_a_refused_image_is_repeated_unless_the_refusal_is_final(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_vendor(monkeypatch, plan=lambda job, key: BUSY if job == 1 and key in "13" else None) as vendor:
        assert buy(store) == 5
        assert [len(job.requests) for job in vendor.jobs] == [5, 2]
    check_stored(store)
    assert [e.cost for e in Ledger(store).entries()] == [3 * PRICE, 2 * PRICE]


@pytest.mark.parametrize(("error", "jobs", "step"), [(BAD, 1, "remove these images"), (BUSY, 3, "try again later")])
def test_an_image_that_stays_refused_is_reported_after_the_others_are_saved(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch, error: dict[str, Any], jobs: int, step: str
) -> None:
    bad = hashlib.sha256(base64.b64encode(PICTURES[2])).hexdigest()

    def plan(number: int, key: str) -> dict[str, Any] | None:
        part = vendor.jobs[number - 1].requests[int(key)]["request"]["content"]["parts"][0]
        return error if hashlib.sha256(part["inline_data"]["data"].encode()).hexdigest() == bad else None

    with running_vendor(monkeypatch, plan=plan) as vendor:
        with pytest.raises(TeacherError, match=r"did not embed 1 image\.") as caught:
            buy(store)
        assert len(vendor.jobs) == jobs
    assert DIGESTS[2].tobytes().hex()[:16] in caught.value.found
    assert error["message"] in caught.value.found
    assert step in caught.value.next_step
    assert store.knows_images(open_teacher(SPEC).describe(), DIGESTS).sum() == 4
    assert Ledger(store).spent() == vendor.billed * PRICE == 4 * PRICE
    assert Ledger(store).queries() == 4


@pytest.mark.parametrize("end", ["EXPIRED", "CANCELLED", "FAILED"])
def test_a_job_without_answers_is_not_counted_and_can_be_repeated(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    with running_vendor(monkeypatch, end=lambda job: end if job == 1 else "SUCCEEDED") as vendor:
        with pytest.raises(TeacherError, match="ended without answers") as caught:
            buy(store)
        assert end.lower() in caught.value.found
        assert "repeat the command" in caught.value.next_step
        assert Ledger(store).spent() == 0
        assert buy(store) == 5
        assert len(vendor.jobs) == 2
    assert Ledger(store).spent() == 5 * PRICE


def test_finished_requests_of_a_cancelled_job_are_spent(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def cancelled(self: GeminiVendor, job: Job) -> dict[str, Any]:
        about = {"state": "BATCH_STATE_CANCELLED", "batchStats": {"successfulRequestCount": "3"}}
        return {"name": job.name, "metadata": about, "done": True}

    monkeypatch.setattr(GeminiVendor, "_operation", cancelled)
    with running_vendor(monkeypatch), pytest.raises(TeacherError, match="ended without answers"):
        buy(store)
    assert Ledger(store).spent() == 3 * PRICE


def test_a_job_that_was_deleted_counts_as_spent(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_vendor(monkeypatch) as vendor:
        buyer_of(store).submit([ImageSet(DIGESTS, PICTURES.__getitem__, "training")])
        vendor.jobs[0].name = "batches/gone"
        with pytest.warns(Vl2vWarning, match="no longer knows the job"):
            assert buy(store) == 5
    assert [(e.state, e.cost) for e in Ledger(store).entries()] == [("sent", 5 * PRICE), ("kept", 5 * PRICE)]


def test_a_budget_is_not_exceeded(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GeminiBatch, "images", 2)
    with running_vendor(monkeypatch) as vendor:
        with pytest.raises(BudgetError):
            buy(store, budget=str(3 * PRICE))
        assert len(vendor.jobs) == 1
        assert Ledger(store).spent() == vendor.billed * PRICE == 2 * PRICE  # the paid results were collected


def test_a_process_corrects_only_costs_within_its_budget(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a record of the spending, a budget is that of one process."""
    part = ImageSet(DIGESTS, PICTURES.__getitem__, "training")
    with running_vendor(monkeypatch, plan=lambda job, key: BUSY if job == 1 else None) as vendor:
        buyer_of(store).submit([part])
        again = buyer_of(store, budget=str(4 * PRICE))
        with pytest.raises(BudgetError):
            again.images(part.digests, part.read, part.purpose)
        assert again.budget.spent == 0
        assert len(vendor.jobs) == 1


def test_only_jobs_with_the_images_of_a_quote_are_subtracted_from_it(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quoted(images: slice, view: int = 0, batch: bool = True) -> Decimal:
        needed = Requirements({("training", view): DIGESTS[images]}, (), 1)
        quote = make_quote(needed, open_teacher(SPEC, batch_api=batch), store, 0, 0, None)
        assert quote.due + quote.reserved == quote.cost
        return quote.reserved

    with running_vendor(monkeypatch):
        assert quoted(slice(5)) == 0
        buyer_of(store, run="another").submit([ImageSet(DIGESTS[:2], PICTURES.__getitem__, "training")])
    assert [quoted(slice(1, 5)), quoted(slice(2, 5)), quoted(slice(5), 1)] == [PRICE, 0, 0]
    assert quoted(slice(5), batch=False) == 0
    assert quoted(slice(5)) == 2 * PRICE


def test_a_vendor_that_accepts_one_job_at_a_time_gets_one_at_a_time(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GeminiBatch, "images", 2)
    with running_vendor(monkeypatch, most=1) as vendor:
        assert buy(store) == 5
        assert len(vendor.jobs) == 3
    check_stored(store)
    assert Ledger(store).spent() == 5 * PRICE


def test_embeddings_of_another_length_are_not_stored(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemini_vendor._embedding", lambda request: [1.0] * 64)
    with running_vendor(monkeypatch), pytest.raises(TeacherError, match="unusable response"):
        buy(store)
    assert not store.knows_images(open_teacher(SPEC).describe(), DIGESTS).any()
    assert Ledger(store).spent() == 5 * PRICE


# Commands


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i, colour in enumerate(((250, 5, 5), (230, 20, 9), (9, 9, 240), (20, 5, 220)) * 2):
        folder = tmp_path / "photos"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (16 + i, 16), colour).save(folder / f"{i}.png")
    return tmp_path / "photos"


def label(photos: Path, *more: str) -> Any:
    out = photos.parent / "labels.csv"
    files = ("--out", out, "--store", photos.parent / "s.sqlite", "--cache", photos.parent / "cache")
    return run_cli("label", photos, "--teacher", SPEC, "--classes", "red,blue", "--budget", "0.01", *files, *more)


@pytest.mark.slow
def test_a_stopped_label_command_continues(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with running_vendor(monkeypatch) as vendor:
        with monkeypatch.context() as patched:
            patched.setattr(time, "sleep", stop)
            stopped = label(photos, "--batch-api")
        assert stopped.returncode == 130
        assert "1 batch job continues at the vendor; repeat the command to collect the answers" in stopped.stderr
        assert "repeat the command" in stopped.stderr
        done = label(photos, "--batch-api")
        assert done.returncode == 0, done.stderr
        assert (len(vendor.jobs), set(vendor.single)) == (1, {"text"})
    rows = (photos.parent / "labels.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1] for row in rows] == ["red", "red", "blue", "blue"] * 2


def test_the_quote_states_the_price_and_the_time(photos: Path) -> None:
    paths = ("--store", photos.parent / "s.sqlite", "--cache", photos.parent / "cache")
    quoted = [
        run_cli("quote", photos, "--classes", "red,blue", "--teacher", SPEC, "--json", *paths, *flag)
        for flag in ((), ("--batch-api",))
    ]
    full, half = (json.loads(done.stdout) for done in quoted)
    texts = Decimal("0.04") * full["text_queries"] / 1000
    assert Decimal(half["cost"]) - texts == (Decimal(full["cost"]) - texts) / 2 == full["image_queries"] * PRICE
    assert "up to 24 hours" in half["note"]
