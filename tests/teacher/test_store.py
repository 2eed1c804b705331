from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from misbehaving_vendor import digests_of

from vl2v.errors import TeacherError
from vl2v.teacher.base import TeacherCard
from vl2v.teacher.purchase.ledger import Ledger
from vl2v.teacher.purchase.store import EmbeddingStore

CARD = TeacherCard("test:teacher", "1", 4, 100.0)
IMAGES, BATCH = 300, 16

# The child that is killed: a teacher that records every image that it embeds, and a buyer with a budget.
CHILD = """
import hashlib, os, sys, time
from decimal import Decimal
from pathlib import Path
import numpy as np
from vl2v.teacher.base import Price, TeacherCard
from vl2v.teacher.purchase.ledger import Budget
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.store import EmbeddingStore

store_path, log_path, count, batch, run = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]

class Logging:
    def __init__(self):
        self.log = os.open(log_path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    def describe(self):
        return TeacherCard("test:teacher", "1", 4, 100.0, Price(per_1000_images=Decimal(1000)), batch)
    def embed_images(self, images):
        for data in images:
            os.write(self.log, data + b"\\n")
        time.sleep(0.004)
        return np.stack([np.frombuffer(hashlib.sha256(b"v" + d).digest(), np.uint8)[:4] + 1.0 for d in images])
    def embed_texts(self, texts):
        raise AssertionError

contents = [b"image %d" % i for i in range(count)]
digests = np.stack([np.frombuffer(hashlib.sha256(c).digest(), np.uint8) for c in contents])
buyer = Buyer(Logging(), EmbeddingStore(Path(store_path)), Budget(Decimal(10**6)), run)
print(buyer.images(digests, contents.__getitem__, "training"))
"""


def vectors_of(count: int, seed: int = 0, dimension: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


def answer_to(content: bytes) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(b"v" + content).digest(), np.uint8)[:4].astype(np.float32) + 1


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddingStore]:
    opened = EmbeddingStore(tmp_path / "deep" / "store.sqlite")
    yield opened
    opened.close()


def test_image_embeddings_are_returned_in_the_order_of_the_query(store: EmbeddingStore) -> None:
    digests, embeddings = digests_of([b"%d" % i for i in range(1200)]), vectors_of(1200)  # above one query's 500
    store.keep_images(CARD, digests, embeddings)
    order = np.random.default_rng(1).permutation(1200)
    assert np.array_equal(store.images(CARD, digests[order]), embeddings[order])
    doubled = np.array([7, 3, 7, 7])
    assert np.array_equal(store.images(CARD, digests[doubled]), embeddings[doubled])
    assert store.images(CARD, digests[:0]).shape == (0, 4)


def test_text_embeddings_are_returned_in_the_order_of_the_query(store: EmbeddingStore) -> None:
    texts, embeddings = ["a cat", "ein Kätzchen", "", "a 'quoted' \n dog"], vectors_of(4)
    store.keep_texts(CARD, texts, embeddings)
    assert np.array_equal(store.texts(CARD, texts[::-1]), embeddings[::-1])
    assert store.knows_texts(CARD, ["a dog", "a cat"]) == [False, True]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=8), st.integers(0, 3)), unique=True, max_size=30),
    st.integers(1, 40),
    st.randoms(use_true_random=False),
)
def test_stored_embeddings_are_read_unchanged(
    tmp_path_factory: pytest.TempPathFactory, keys: list[tuple[bytes, int]], d: int, random: Random
) -> None:
    store = EmbeddingStore(tmp_path_factory.mktemp("round") / "s.sqlite")
    card, embeddings = replace(CARD, dimension=d), vectors_of(len(keys), d, d)
    for (content, view), vector in zip(keys, embeddings, strict=True):
        store.keep_images(card, digests_of([content]), vector[None], view)
    order = list(range(len(keys)))
    random.shuffle(order)
    for i in order:
        assert np.array_equal(store.images(card, digests_of([keys[i][0]]), keys[i][1])[0], embeddings[i])
    store.close()


@pytest.mark.parametrize("other", [{"identity": "test:other"}, {"revision": "2"}, {"dimension": 5}])
def test_embeddings_of_another_teacher_are_not_returned(store: EmbeddingStore, other: dict[str, object]) -> None:
    other_teacher = replace(CARD, **other)  # type: ignore[arg-type]
    digests = digests_of([b"a", b"b"])
    store.keep_images(CARD, digests, vectors_of(2))
    store.keep_texts(CARD, ["t"], vectors_of(1))
    assert not store.knows_images(other_teacher, digests).any()
    assert store.knows_texts(other_teacher, ["t"]) == [False]
    with pytest.raises(TeacherError):
        store.images(other_teacher, digests)
    embeddings = vectors_of(2, 9, other_teacher.dimension)
    store.keep_images(other_teacher, digests, embeddings)
    assert np.array_equal(store.images(other_teacher, digests), embeddings)
    assert np.array_equal(store.images(CARD, digests), vectors_of(2))


def test_price_and_scale_do_not_change_the_identity_of_a_teacher(store: EmbeddingStore) -> None:
    store.keep_images(CARD, digests_of([b"a"]), vectors_of(1))
    assert store.knows_images(replace(CARD, logit_scale=1.0, batch_size=3), digests_of([b"a"])).all()


def test_views_are_stored_separately(store: EmbeddingStore) -> None:
    digests = digests_of([b"a"])
    store.keep_images(CARD, digests, vectors_of(1, 1), view=1)
    assert not store.knows_images(CARD, digests).any()
    assert store.knows_images(CARD, digests, view=1).all()


def test_reading_an_embedding_that_was_not_bought_is_an_error(store: EmbeddingStore) -> None:
    store.keep_images(CARD, digests_of([b"a"]), vectors_of(1))
    with pytest.raises(TeacherError, match=digests_of([b"b"])[0].tobytes().hex()[:16]):
        store.images(CARD, digests_of([b"a", b"b"]))
    with pytest.raises(TeacherError, match="'a cat'"):
        store.texts(CARD, ["a cat"])


def test_a_batch_is_stored_completely_or_not_at_all(store: EmbeddingStore) -> None:
    entry = store.open_entry(CARD, "run", "image", "training", 2, Decimal(1))
    with pytest.raises(ValueError, match="shorter"):
        store.keep_images(CARD, digests_of([b"a", b"b"]), vectors_of(1), entry=entry)
    assert not store.knows_images(CARD, digests_of([b"a", b"b"])).any()
    assert [entry.state for entry in store.entries()] == ["sent"]
    store.keep_images(CARD, digests_of([b"a", b"b"]), vectors_of(2), entry=entry)
    assert [entry.state for entry in store.entries()] == ["kept"]


def test_embeddings_survive_reopening(tmp_path: Path) -> None:
    first = EmbeddingStore(tmp_path / "s.sqlite")
    first.keep_images(CARD, digests_of([b"a"]), vectors_of(1))
    first.close()
    second = EmbeddingStore(tmp_path / "s.sqlite")
    assert np.array_equal(second.images(CARD, digests_of([b"a"])), vectors_of(1))
    second.close()


OLD = """
CREATE TABLE ledger (
    id INTEGER PRIMARY KEY, time REAL NOT NULL, run TEXT NOT NULL, teacher INTEGER NOT NULL, kind TEXT NOT NULL,
    purpose TEXT NOT NULL, queries INTEGER NOT NULL, cost TEXT NOT NULL, currency TEXT NOT NULL, state TEXT NOT NULL);
CREATE TABLE teachers (
    id INTEGER PRIMARY KEY, identity TEXT NOT NULL, revision TEXT NOT NULL, dimension INTEGER NOT NULL,
    UNIQUE (identity, revision, dimension));
INSERT INTO teachers VALUES (1, 'test:teacher', '1', 4);
INSERT INTO ledger VALUES (1, 1e9, 'run', 1, 'image', 'training', 2, '0.5', 'USD', 'sent');
INSERT INTO ledger VALUES (2, 1e9, 'run', 1, 'image', 'training', 3, '1.5', 'USD', 'kept');
"""


def test_a_store_of_an_earlier_version_can_be_opened(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "s.sqlite")) as old:
        old.executescript(OLD)
    for _ in range(2):  # it was migrated the first time
        store = EmbeddingStore(tmp_path / "s.sqlite")
        assert Ledger(store).spent("run") == 2
        assert [(e.queries, e.attempts, e.state) for e in Ledger(store).entries()] == [(2, 1, "sent"), (3, 1, "kept")]
        assert store.pending(CARD) == []
        store.close()


def test_a_batch_under_a_key_is_pending_until_it_is_settled(store: EmbeddingStore) -> None:
    digests = digests_of([b"a", b"b"])
    members = digests.tobytes()
    entry = store.open_entry(CARD, "run", "image", "training", 2, Decimal(1), key="k", members=members, view=3)
    plain = store.open_entry(CARD, "run", "image", "training", 2, Decimal(1))
    (pending,) = store.pending(CARD, "image", 3)
    assert (pending.entry, pending.key, pending.members, pending.run, pending.cost) == (
        entry,
        "k",
        members,
        "run",
        Decimal(1),
    )
    assert store.pending(CARD) == [pending]
    assert (
        store.pending(CARD, "image", 0)
        == store.pending(CARD, "text")
        == store.pending(replace(CARD, revision="2"))
        == []
    )
    store.keep_images(CARD, digests, vectors_of(2), 3, entry, Decimal("0.25"))
    store.note(plain, "HTTP 429", refused=True)
    assert store.pending(CARD) == []
    assert [(entry.cost, entry.state) for entry in store.entries()] == [(Decimal("0.25"), "kept"), (0, "refused")]
    assert Ledger(store).queries() == 2  # refused queries are not counted


@pytest.mark.parametrize(("cost", "spent"), [(None, 2), (Decimal("0.5"), Decimal("0.5")), (Decimal(0), 0)])
def test_an_unusable_response_costs_what_the_vendor_states(
    store: EmbeddingStore, cost: Decimal | None, spent: Decimal
) -> None:
    store.write_off(store.open_entry(CARD, "run", "image", "training", 2, Decimal(2)), "another model", cost)
    assert Ledger(store).spent() == spent


def test_a_pending_batch_is_settled_when_the_vendor_forgets_its_key(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.open_entry(CARD, "run", "text", "prompts", 1, Decimal(1), key="k", members=b'["a"]')
    now = time.time()
    monkeypatch.setattr("vl2v.teacher.purchase.ledger_table.time.time", lambda: now + 22.9 * 3600)
    assert len(store.pending(CARD)) == 1
    monkeypatch.setattr("vl2v.teacher.purchase.ledger_table.time.time", lambda: now + 23.1 * 3600)
    assert store.pending(CARD) == []


def start(tmp_path: Path, run: str) -> subprocess.Popen[bytes]:
    arguments = [str(tmp_path / "s.sqlite"), str(tmp_path / "log"), str(IMAGES), str(BATCH), run]
    return subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE)


def logged_queries(tmp_path: Path) -> list[bytes]:
    log = tmp_path / "log"
    return log.read_bytes().splitlines() if log.exists() else []


def open_complete_store(tmp_path: Path) -> EmbeddingStore:
    store = EmbeddingStore(tmp_path / "s.sqlite")
    contents = [b"image %d" % i for i in range(IMAGES)]
    assert np.array_equal(store.images(CARD, digests_of(contents)), np.stack([answer_to(c) for c in contents]))
    return store


@pytest.mark.system
def test_a_kill_at_any_moment_loses_no_stored_embedding(tmp_path: Path) -> None:
    """Only the batch that is in flight at a kill may be queried again, because its answer never reached the disk."""
    kills = 0
    for after in (0, 1, 40, 80, 130, 190, 240):  # new answers to wait for
        child = start(tmp_path, "run")
        wanted = max(after, len(logged_queries(tmp_path)) + 1) if after else 0
        deadline = time.monotonic() + 30
        while len(logged_queries(tmp_path)) < wanted and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(0.0013 * kills)  # a different point within the batch each time
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert child.stdout is not None
        child.stdout.close()
        kills += 1
        store = EmbeddingStore(tmp_path / "s.sqlite")
        contents = [b"image %d" % i for i in range(IMAGES)]
        known = store.knows_images(CARD, digests_of(contents))
        store.close()
        stored = {content for content, k in zip(contents, known, strict=True) if k}
        before = logged_queries(tmp_path)
        assert stored <= set(before)
        assert len(set(before) - stored) <= BATCH
        (tmp_path / f"stored{kills}").write_bytes(b"\n".join([b"%d" % len(before), *sorted(stored)]))
    last = start(tmp_path, "run")
    out, _ = last.communicate(timeout=60)
    assert last.returncode == 0
    assert 0 < int(out) < IMAGES
    everything = logged_queries(tmp_path)
    for kill in range(1, kills + 1):
        length, *stored_then = (tmp_path / f"stored{kill}").read_bytes().split(b"\n")
        assert not set(stored_then) & set(everything[int(length) :]), "a stored image was queried again"
    assert set(everything) == {b"image %d" % i for i in range(IMAGES)}
    assert len(everything) <= IMAGES + kills * BATCH
    store = open_complete_store(tmp_path)
    entries = Ledger(store).entries("run")
    assert sum(entry.queries for entry in entries if entry.state == "kept") == IMAGES
    assert sum(entry.state == "sent" for entry in entries) <= kills
    assert Ledger(store).spent("run") >= len(everything)  # every query is in the ledger
    store.close()


def test_two_processes_at_once_never_buy_an_image_twice(tmp_path: Path) -> None:
    children = [start(tmp_path, run) for run in ("one", "two")]
    outs = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert set(Counter(logged_queries(tmp_path)).values()) == {1}
    store = open_complete_store(tmp_path)
    assert Ledger(store).spent() == IMAGES
    assert sum(int(out) for out in outs) == IMAGES
    store.close()
