"""Many clients at once, repeated requests, overload, errors of the model: over HTTP against real servers."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from vendor_fixtures import spawner, teacher  # noqa: F401
from vendor_serving import HTTP, PlainTeacher, Server, Spawner, bearer, local_server, new_key, picture

from ports import free_port
from vl2v.errors import TeacherError
from vl2v.teacher.base import Embeddings
from vl2v.web.limits import Limits


def image(seed: int) -> dict[str, str]:
    return {"image": base64.b64encode(picture(seed)).decode()}


def embeddings(answer: httpx.Response) -> Embeddings:
    assert answer.status_code == 200, answer.text
    return np.array([entry["embedding"] for entry in answer.json()["data"]], np.float32)


def billed_rows(server: Server) -> list[tuple[Any, ...]]:
    with sqlite3.connect(server.db.removeprefix("sqlite:///")) as database:
        return database.execute("SELECT account, images, texts, cost_nano FROM bills").fetchall()


def test_fifty_clients_at_once_get_their_own_rows_and_one_bill_each(spawner: Spawner, teacher: Any) -> None:
    """Ten of the fifty share an account with a small quota; every tenth request is broken and costs nothing."""
    server = spawner.start()
    keys = [new_key(server.db) for _ in range(40)]
    poor = new_key(server.db, quota="0.006")  # ten images
    keys += [poor] * 10
    files = [picture(seed) for seed in range(40)]
    known = teacher.embed_images(files)
    tally: dict[str, int] = dict.fromkeys(keys, 0)
    lock = threading.Lock()

    async def client(number: int, http: httpx.AsyncClient) -> None:
        draw = np.random.default_rng(number)
        for turn in range(5):
            picked = draw.integers(0, 40, draw.integers(1, 5))
            inputs: list[Any] = [{"image": base64.b64encode(files[i]).decode()} for i in picked]
            broken = (5 * number + turn) % 10 == 3
            body = {"model": server.model, "input": [*inputs, {"image": "iVBOR"}] if broken else inputs}
            answer = await http.post(f"{server.url}/v1/embeddings", json=body, headers=bearer(keys[number]))
            if broken:
                assert answer.status_code in ((400, 402) if keys[number] == poor else (400,)), answer.text
            elif keys[number] == poor and answer.status_code == 402:
                continue
            else:
                np.testing.assert_allclose(embeddings(answer), known[picked], atol=1e-5)
                with lock:
                    tally[keys[number]] += len(picked)

    async def run_all_clients() -> None:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(verify=False, timeout=60, limits=limits) as http:
            await asyncio.gather(*(client(number, http) for number in range(50)))

    asyncio.run(run_all_clients())
    for key in set(keys):
        usage = server.usage(key)
        assert usage["images"] == tally[key]
        assert Decimal(usage["cost"]) == Decimal("0.0006") * tally[key]
    assert tally[poor] <= 10
    rows = billed_rows(server)
    assert sum(row[1] for row in rows) == sum(tally.values())
    figures = HTTP.get(f"{server.url}/metrics").text
    assert f'vl2v_billed_inputs_total{{kind="image"}} {float(sum(tally.values()))}' in figures
    assert "vl2v_queue_inputs 0.0" in figures
    assert "vl2v_held_bytes 0.0" in figures


def test_requests_of_several_clients_share_batches(tmp_path: Path) -> None:
    teacher = PlainTeacher(seconds=0.05, batch_size=8)
    with local_server(teacher, tmp_path) as server, ThreadPoolExecutor(24) as threads:
        key = new_key(server.db)
        answers = list(threads.map(lambda i: server.ask(key, {"model": "plain", "input": f"text {i}"}), range(24)))
    for i, answer in enumerate(answers):
        np.testing.assert_array_equal(embeddings(answer)[0], PlainTeacher.vector(f"text {i}".encode()))
    assert teacher.seen == 24
    assert max(teacher.batches) <= 8
    assert len(teacher.batches) < 12


def test_a_request_larger_than_a_batch_is_split(tmp_path: Path) -> None:
    teacher = PlainTeacher(batch_size=8)
    with local_server(teacher, tmp_path) as server:
        texts = [f"text {i}" for i in range(30)]
        answer = server.ask(new_key(server.db), {"model": "plain", "input": texts})
    np.testing.assert_array_equal(embeddings(answer), np.stack([PlainTeacher.vector(t.encode()) for t in texts]))
    assert max(teacher.batches) == 8


def test_a_broken_image_does_not_affect_other_requests(tmp_path: Path) -> None:
    """Its headers are valid, so only decoding in a batch shared with others shows that it is truncated."""

    class Decoding(PlainTeacher):
        def embed_images(self, images: list[bytes]) -> Embeddings:
            if any(data == cut for data in images):
                raise TeacherError("An image was rejected.")
            return self._answer(images)

    cut = picture(3)[:-400]
    bad = {"image": base64.b64encode(cut).decode()}
    teacher = Decoding(seconds=0.05, batch_size=16)
    with local_server(teacher, tmp_path) as server, ThreadPoolExecutor(12) as threads:
        key = new_key(server.db)

        def ask(i: int) -> httpx.Response:
            return server.ask(key, {"model": "plain", "input": [image(i), bad] if i % 4 == 1 else [image(i)]})

        answers = list(threads.map(ask, range(12)))
        usage = server.usage(key)
    for i, answer in enumerate(answers):
        if i % 4 == 1:
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_image", "input[1]")
        else:
            np.testing.assert_array_equal(embeddings(answer)[0], PlainTeacher.vector(picture(i)))
    assert (usage["images"], usage["requests"]) == (9, 9)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (np.full((1, 4), np.nan, np.float32), 500, "model_failed"),
        (np.ones((2, 4), np.float32), 500, "model_failed"),
        (RuntimeError("out of memory"), 500, "model_failed"),
        (TeacherError("no vector of this text"), 422, "unanswerable_input"),
    ],
)
def test_an_error_of_the_model_is_not_billed(tmp_path: Path, fault: Any, status: int, code: str) -> None:
    class Faulty(PlainTeacher):
        def embed_texts(self, texts: list[str]) -> Embeddings:
            if texts != ["bad"]:
                return super().embed_texts(texts)
            if isinstance(fault, Exception):
                raise fault
            return np.asarray(fault)

    with local_server(Faulty(), tmp_path) as server:
        key = new_key(server.db, quota="0.0001")  # one text: a failed request must not stay reserved
        answer = server.ask(key, {"model": "plain", "input": "bad"}, once="a")
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert server.usage(key)["billed_units"] == 0
        assert server.ask(key, {"model": "plain", "input": "good"}, once="b").status_code == 200
        assert server.usage(key)["billed_units"] == 1


def test_overload_is_503_with_retry_after_and_is_not_billed(tmp_path: Path) -> None:
    teacher = PlainTeacher(seconds=0.3, batch_size=4)
    limits = Limits(inputs=4, queue=8)
    with local_server(teacher, tmp_path, limits=limits) as server, ThreadPoolExecutor(12) as threads:
        key = new_key(server.db)
        bodies = [{"model": "plain", "input": [f"{i} {j}" for j in range(2)]} for i in range(12)]
        answers = list(threads.map(lambda body: server.ask(key, body), bodies))
        usage = server.usage(key)
    fine = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(fine) + len(refused) == 12
    assert refused
    assert fine
    assert all(answer.json()["error"]["code"] == "overloaded" for answer in refused)
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)
    assert all(answer.headers["x-should-retry"] == "true" for answer in refused)
    assert usage["text_inputs"] == 2 * len(fine) == teacher.seen


def test_two_requests_at_once_with_one_idempotency_key_do_the_work_once(tmp_path: Path) -> None:
    teacher = PlainTeacher(seconds=0.3)
    with local_server(teacher, tmp_path) as server, ThreadPoolExecutor(6) as threads:
        key, other = new_key(server.db), new_key(server.db)
        body = {"model": "plain", "input": "a text"}
        answers = list(threads.map(lambda _: server.ask(key, body, once="one"), range(5)))
        assert teacher.seen == 1
        assert len({answer.content for answer in answers}) == 1
        assert sorted(answer.headers.get("idempotent-replayed", "") for answer in answers) == ["", *["true"] * 4]
        assert server.usage(key)["requests"] == 1
        clash = server.ask(key, {"model": "plain", "input": "another"}, once="one")
        assert (clash.status_code, clash.json()["error"]["code"]) == (422, "idempotency_key_reused")
        assert server.ask(other, body, once="one").headers.get("idempotent-replayed") is None
        assert server.usage(other)["requests"] == 1


def test_a_different_body_with_the_same_key_is_refused_while_the_first_is_in_flight(tmp_path: Path) -> None:
    with local_server(PlainTeacher(seconds=0.5), tmp_path) as server, ThreadPoolExecutor(2) as threads:
        key = new_key(server.db)
        first = threads.submit(server.ask, key, {"model": "plain", "input": "a"}, "one")
        time.sleep(0.2)
        assert server.ask(key, {"model": "plain", "input": "b"}, once="one").status_code == 422
        assert first.result().status_code == 200
        assert server.usage(key)["requests"] == 1


def test_a_client_that_disconnects_gets_its_answer_when_it_retries(tmp_path: Path) -> None:
    teacher = PlainTeacher(seconds=0.4)
    with local_server(teacher, tmp_path) as server:
        key, body = new_key(server.db), {"model": "plain", "input": "a text"}
        with pytest.raises(httpx.ReadTimeout):
            HTTP.post(f"{server.url}/v1/embeddings", json=body, headers=bearer(key, "one"), timeout=0.1)
        content = httpx.Request("POST", server.url, json=body).content
        answer = server.ask(key, content, once="one")
        assert answer.headers["idempotent-replayed"] == "true"
        assert (server.usage(key)["requests"], teacher.seen) == (1, 1)


def test_an_answer_survives_a_restart_and_a_quota_that_is_spent(spawner: Spawner) -> None:
    server = spawner.start()
    key, body = new_key(server.db, quota="0.0006"), {"model": server.model, "input": [image(1)]}
    first = server.ask(key, body, once="one")
    server.kill()
    again = spawner.start(db=server.db).ask(key, body, once="one")
    assert again.headers["idempotent-replayed"] == "true"
    assert again.content == first.content


@pytest.mark.system
@pytest.mark.parametrize(("moment", "replayed"), [("before commit", None), ("after commit", "true")])
def test_a_server_killed_during_or_after_the_bill_charges_once(
    spawner: Spawner, moment: str, replayed: str | None
) -> None:
    server = spawner.start(die=moment)
    key, body = new_key(server.db), {"model": server.model, "input": [image(1), image(2)]}
    with pytest.raises(httpx.HTTPError):
        server.ask(key, body, once="one")
    server = spawner.start(db=server.db)
    assert server.usage(key)["images"] == (2 if replayed else 0)
    answer = server.ask(key, body, once="one")
    assert answer.status_code == 200
    assert answer.headers.get("idempotent-replayed") == replayed
    assert server.usage(key)["images"] == 2


@pytest.mark.system
def test_killed_at_twenty_points_the_bill_is_the_number_of_distinct_images(spawner: Spawner) -> None:
    """Clients repeat every request until it is answered; the server is killed and restarted at random times."""
    port, draw = free_port(), np.random.default_rng(0)
    server = spawner.start(port=port)
    key, sizes, done = new_key(server.db), draw.integers(1, 6, 1000), threading.Event()
    lost = 0
    answered: set[int] = set()

    def client(lane: int) -> None:
        nonlocal lost
        number = lane
        while not done.is_set():
            body = {"model": server.model, "input": [image(int(s)) for s in range(number, number + sizes[number])]}
            while True:
                try:
                    if server.ask(key, body, once=f"request {number}").status_code == 200:
                        break
                except httpx.HTTPError:
                    lost += 1
                    time.sleep(0.02)
            answered.add(number)
            number += 4

    threads = [threading.Thread(target=client, args=(lane,)) for lane in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        time.sleep(draw.uniform(0.02, 0.25))
        server.kill()
        server = spawner.start(db=server.db, port=port)
    done.set()
    for thread in threads:
        thread.join()
    usage = server.usage(key)
    assert usage["requests"] == len(answered)
    assert usage["images"] == sum(int(sizes[number]) for number in answered)
    assert sum(row[1] for row in billed_rows(server)) == usage["images"]
    assert lost >= 20  # the kills did hit requests in flight
