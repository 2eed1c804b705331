"""Image URLs: off unless allowed; never access to the vendor's network."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from vendor_serving import PlainTeacher, local_server, new_key, picture

from vl2v.vendor_server.links import Links, public
from vl2v.web.faults import ApiError

FILE = picture(1)


class Handler(http.server.BaseHTTPRequestHandler):
    seen: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["host"]))
        port = cast(http.server.HTTPServer, self.server).server_port
        moves = {
            "/moved": f"http://images.test:{port}/file",
            "/relative": "file",
            "/inside": f"http://127.0.0.1:{port}/file",
            "/other": "http://other.test/file",
            "/scheme": "file:///etc/passwd",
            "/loop": "/loop",
        }
        if self.path in moves:
            self.send_response(302)
            self.send_header("location", moves[self.path])
            self.end_headers()
            return
        if self.path == "/missing":
            self.send_error(404)
            return
        body = {"/large": b"x" * 70_000, "/zipped": gzip.compress(bytes(10**7))}.get(self.path, FILE)
        self.send_response(200)
        if self.path == "/zipped":
            self.send_header("content-encoding", "gzip")
        self.end_headers()
        self.send_body(body)

    def send_body(self, body: bytes) -> None:
        if self.path != "/slow":
            self.wfile.write(body)
            return
        for byte in body[:60]:
            try:
                self.wfile.write(bytes([byte]))
            except OSError:
                return
            time.sleep(0.05)

    def log_message(self, *_: Any) -> None:
        return


@contextmanager
def web() -> Iterator[tuple[int, list[tuple[str, str]]]]:
    seen: list[tuple[str, str]] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Seen", (Handler,), {"seen": seen}))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_port, seen
    finally:
        server.shutdown()


async def here(host: str, port: int) -> list[str]:
    """Every name of `.test` is this machine."""
    return ["127.0.0.1"] if host.endswith(".test") else [host]


def links(port: int, **changes: Any) -> Links:
    options: dict[str, Any] = {"resolver": here, "acceptable": lambda address: True} | changes
    return Links([f"images.test:{port}", f"also.test:{port}"], 60_000, 0.5, **options)


def fetch(one: Links, url: str) -> bytes:
    return asyncio.run(one.fetch(url, "input[0]"))


@pytest.mark.parametrize("path", ["file", "moved", "relative", "file?a=b#c", "%66ile"])
def test_an_allowed_image_is_fetched_from_the_address_that_was_checked(path: str) -> None:
    with web() as (port, seen):
        assert fetch(links(port), f"http://images.test:{port}/{path}") == FILE
        assert {host for _, host in seen} == {f"images.test:{port}"}


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("inside", 400, "image_url_refused"),
        ("other", 400, "image_url_refused"),
        ("scheme", 400, "image_url_refused"),
        ("loop", 400, "image_url_failed"),
        ("missing", 400, "image_url_failed"),
        ("zipped", 400, "image_url_failed"),
        ("slow", 400, "image_url_failed"),
        ("large", 413, "image_too_large"),
    ],
)
def test_other_urls_are_not_fetched(path: str, status: int, code: str) -> None:
    with web() as (port, _), pytest.raises(ApiError) as caught:
        fetch(links(port), f"http://images.test:{port}/{path}")
    assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize(
    "url",
    [
        "http://images.test/file",  # another port
        "http://images.test.evil.test:{port}/file",
        "http://evil.test:{port}/images.test",
        "http://images.test:{port}@evil.test/file",
        "http://user:secret@images.test:{port}/file",
        "http://127.0.0.1:{port}/file",
        "http://[::1]:{port}/file",
        "http://evil.test\\@images.test:{port}/file",
        "http://images.test:99999/file",
        "http://images.test:x/file",
        "http://:{port}/file",
        "http://",
        "https://images.test%00.evil.test:{port}/",
        "http://2130706433:{port}/file",
        "http://0x7f.1:{port}/file",
        "gopher://images.test:{port}/file",
    ],
)
def test_disguised_urls_are_refused(url: str) -> None:
    with web() as (port, seen):
        with pytest.raises(ApiError) as caught:
            fetch(links(port), url.format(port=port))
        assert caught.value.code == "image_url_refused"
        assert not seen


def test_a_name_is_resolved_once_and_private_addresses_are_refused() -> None:
    resolved: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        """Return a public address for the first query and a private one afterwards."""
        resolved.append(host)
        return ["203.0.113.9"] if len(resolved) == 1 else ["127.0.0.1"]

    with web() as (port, seen):
        with pytest.raises(ApiError):
            fetch(links(port, acceptable=public), f"http://images.test:{port}/file")
        with pytest.raises(ApiError):
            fetch(links(port, resolver=rebinding), f"http://images.test:{port}/file")
        assert resolved == ["images.test"]
        assert not seen


def test_one_private_address_among_several_is_enough_to_refuse() -> None:
    async def two(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "10.0.0.1"]

    with pytest.raises(ApiError) as caught:
        fetch(links(80, resolver=two, acceptable=public), "http://images.test:80/file")
    assert caught.value.code == "image_url_refused"


PRIVATE = """
127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 0.0.0.0 100.64.0.1 224.0.0.1 255.255.255.255 nonsense ::1 ::
fe80::1 fe80::1%eth0 fc00::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 2002:7f00:1::
"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_addresses_that_are_not_public(address: str) -> None:
    assert not public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("fec0::1", "feff::1", "64:ff9b:1::1", "::127.0.0.1", "::8.8.8.8", "::ffff:0:8.8.8.8", "::ffff:0:127.0.0.1"),
        *("192.88.99.1", "192.0.0.9", "192.0.0.171", "3fff::1", "2001:db8::1", "2001:2::1", "4000::1", "5f00::1"),
        *("64:ff9b::10.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "2002:c058:6301::", "100::1", "ff0e::1", "::"),
    ],
)
def test_special_addresses_are_not_public_even_if_python_says_so(address: str) -> None:
    assert not public(address)


def test_other_addresses_are_public() -> None:
    assert all(
        public(address) for address in ("::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2a00:1450:4001::1", "2002:808:808::")
    )
    assert all(public(address) for address in ("93.184.216.34", "8.8.8.8", "2606:4700:4700::1111"))


def test_urls_over_http_are_off_by_default_and_billed_if_allowed(tmp_path: Path) -> None:
    """Over HTTP, URLs are off by default and billed like other images when they are allowed."""
    with web() as (port, seen):
        url = f"http://images.test:{port}/file"
        with local_server(PlainTeacher(), tmp_path) as server:
            body = {"model": "plain", "input": [{"image": url}]}
            refused = server.ask(new_key(server.db), body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "image_url_refused")
        assert not seen
        with local_server(PlainTeacher(), tmp_path, links=links(port)) as server:
            key = new_key(server.db)
            for fields in ({"input": [{"image": url}]}, {"input": url, "modality": "image"}):
                answer = server.ask(key, {"model": "plain", **fields})
                assert answer.status_code == 200
                np.testing.assert_array_equal(answer.json()["data"][0]["embedding"], PlainTeacher.vector(FILE))
            assert server.ask(key, {"model": "plain", "input": [{"image": url + "/../large"}]}).status_code == 413
            assert server.usage(key)["images"] == 2
