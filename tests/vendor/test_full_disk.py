"""A vendor with a full disk refuses requests, reports it in its log and at /health, and recovers when space is free."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from vendor_serving import HTTP, PlainTeacher, local_server, new_key

from vl2v.vendor_server.database import open_database


def test_a_full_disk_is_logged_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    db, most = f"sqlite:///{tmp_path}/local.sqlite", [2**30]
    key = new_key(db)

    def full(connection: Any, _: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={most[0]}")

    def opened(address: str) -> Any:
        engine = open_database(address)
        event.listen(engine, "checkout", lambda connection, *_: full(connection, None))
        return engine

    monkeypatch.setattr("vendor_serving.open_database", opened)
    with caplog.at_level(logging.ERROR), local_server(PlainTeacher(), tmp_path) as server:
        most[0] = 1  # SQLite raises it to the current number of pages
        large = {"model": "plain", "input": ["x"] * 60}
        refused = [server.ask(key, large, f"k{i}") for i in range(8)]
        assert refused[-1].status_code == 503
        assert HTTP.get(f"{server.url}/health").status_code == 503
        assert "database cannot be read or written" in HTTP.get(f"{server.url}/health").json()["faults"][0]
        assert "database or disk is full" in caplog.text
        assert key not in caplog.text
        most[0] = 2**30
        assert HTTP.get(f"{server.url}/health").json() == {"status": "ok"}
        assert server.ask(key, large, "k7").status_code == 200
        billed = 60 * (1 + sum(answer.status_code == 200 for answer in refused))
        assert server.usage(key)["text_inputs"] == billed
