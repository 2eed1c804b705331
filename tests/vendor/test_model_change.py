"""If a vendor changes the weights of a model, clients never get, pay for or store answers of the other weights."""

from __future__ import annotations

import hashlib
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from vendor_serving import PRICE, PlainTeacher, local_server, new_key, picture

from vl2v.errors import TeacherError
from vl2v.teacher.base import Embeddings, TeacherCard
from vl2v.teacher.http.client import HttpTeacher
from vl2v.teacher.http.uri import open_wire
from vl2v.teacher.purchase.buyer import Buyer
from vl2v.teacher.purchase.ledger import Budget, Ledger
from vl2v.teacher.purchase.store import EmbeddingStore

PICTURES = [picture(i) for i in range(6)]
DIGESTS = np.array([list(hashlib.sha256(p).digest()) for p in PICTURES], np.uint8)


class Revised(PlainTeacher):
    """A `PlainTeacher` whose embeddings depend on a revision."""

    def __init__(self, revision: str) -> None:
        super().__init__()
        self.revision = revision

    def describe(self) -> TeacherCard:
        return TeacherCard("seller", self.revision, 4, 20.0)

    def _answer(self, values: list[bytes]) -> Embeddings:
        return super()._answer(values) + np.float32(len(self.revision))


def buyer(url: str, store: EmbeddingStore, budget: str = "1") -> Buyer:
    return Buyer(HttpTeacher(open_wire(f"{url}/v1")), store, Budget(Decimal(budget)), "run")


def test_another_revision_never_repeats_the_old_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = ""
    with closing(EmbeddingStore(tmp_path / "client.sqlite")) as store:
        for teacher in (Revised("a"), Revised("bb")):
            with local_server(teacher, tmp_path) as server:
                key = key or new_key(server.db)
                monkeypatch.setenv("VL2V_API_KEY", key)
                buyer(server.url, store).images(DIGESTS, PICTURES.__getitem__, "training")
                assert np.array_equal(store.images(teacher.describe(), DIGESTS), teacher.embed_images(PICTURES))
                billed = Decimal(server.usage(key)["cost"])
        assert Ledger(store).spent() == billed == PRICE.of(images=2 * len(PICTURES))


def test_a_change_between_quote_and_purchase_is_refused_unbilled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(EmbeddingStore(tmp_path / "client.sqlite")) as store:
        with local_server(Revised("a"), tmp_path) as server:
            key = new_key(server.db)
            monkeypatch.setenv("VL2V_API_KEY", key)
            quoted = buyer(server.url, store)
            quoted.teacher.describe()
        with local_server(Revised("bb"), tmp_path) as other:
            quoted.teacher.wire.base = f"{other.url}/v1"  # type: ignore[attr-defined]
            with pytest.raises(TeacherError, match=r"HTTP 412(.|\n)*revision bb(.|\n)*new quote") as caught:
                quoted.images(DIGESTS, PICTURES.__getitem__, "training")
            assert caught.value.exit_code == 4
            assert Decimal(other.usage(key)["cost"]) == Ledger(store).spent() == 0


def test_every_answer_names_its_model(tmp_path: Path) -> None:
    with local_server(Revised("a"), tmp_path) as server:
        key = new_key(server.db)
        answer = server.ask(key, {"model": "seller", "input": ["x"]}).json()
        assert (answer["revision"], answer["logit_scale"], answer["dimension"]) == ("a", 20.0, 4)


def test_a_key_identifies_another_request_for_another_revision(tmp_path: Path) -> None:
    """A client that does not know revisions sends the same key for the same body."""
    key, rows = "", []
    for teacher in (Revised("a"), Revised("bb")):
        with local_server(teacher, tmp_path) as server:
            key = key or new_key(server.db)
            answers = [server.ask(key, {"model": "seller", "input": ["x"]}, once="same") for _ in range(2)]
            assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true"]
            rows.append(answers[0].json()["data"][0]["embedding"])
            billed = Decimal(server.usage(key)["cost"])
    assert rows[0] != rows[1]
    assert billed == PRICE.of(texts=2)
