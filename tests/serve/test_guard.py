"""Access to a served student by the headers Host and Origin."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from vl2v.serve.guard import check_host, check_origin
from vl2v.web.faults import ApiError


def request_with(**headers: str) -> Request:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": raw})


@pytest.mark.parametrize("host", ["[::1", "a[b", "[", "]", "::1]:80", "[zz]:80", ":80"])
@pytest.mark.parametrize("local", [True, False])
def test_a_malformed_host_is_an_error_of_the_client(host: str, local: bool) -> None:
    with pytest.raises(ApiError) as caught:
        check_host(request_with(host=host), local)
    assert caught.value.status in (400, 403)
    with pytest.raises(ApiError) as caught:
        check_origin(request_with(host="localhost:80", origin=f"http://{host}"))
    assert caught.value.status == 403


def test_hosts_and_origins_of_this_machine_are_accepted() -> None:
    for host in ("localhost:8080", "127.0.0.1", "[::1]:8080"):
        check_host(request_with(host=host), True)
        check_origin(request_with(host=host, origin=f"http://{host}"))
    with pytest.raises(ApiError) as caught:
        check_host(request_with(host="evil.example"), True)
    assert caught.value.status == 403
    with pytest.raises(ApiError):
        check_origin(request_with(host="localhost:8080", origin="null"))
