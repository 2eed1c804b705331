"""Fetch images from addresses and save them as files: ``https://`` by HTTP, ``s3://`` and ``gs://`` with fsspec."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl2v.data.tables.base import Broken
from vl2v.data.tables.cells import plain_path
from vl2v.errors import MissingExtraError
from vl2v_runtime.names import shown

if TYPE_CHECKING:  # imported where an address is fetched: most tables have none
    import httpx

WEB = ("https", "http")
FILES = {"s3": "s3fs", "gs": "gcsfs"}  # package by scheme; the extras have the same names
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
LINKS = "links"  # folder of small files that map addresses to images
AT_ONCE = 16
SECONDS = 60.0  # per file, including redirects and retries
ATTEMPTS = 3
PAUSE = 1.0  # seconds before the first retry; doubles with each retry
MOST_BYTES = 2**28
REDIRECTS = 5
GIVE_UP = 10  # consecutive failures of a host, after which it receives no more requests
TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
TRY_AGAIN = "check the address, and run the command again; or leave the image out: --skip-bad"


class _UnreachableError(Exception):
    """A file cannot be fetched. The message states the reason.

    Attributes:
        temporary: whether the failure may be temporary, so that it is retried.
        no_response: whether the host did not respond.
    """

    def __init__(self, why: str, *, temporary: bool = False, no_response: bool = False) -> None:
        super().__init__(why)
        self.temporary, self.no_response = temporary, no_response


def schemes() -> tuple[str, ...]:
    """Return the supported schemes."""
    return (*WEB, *FILES)


def is_address(text: object) -> bool:
    """Return whether a value is an address, of any scheme, rather than a path."""
    return isinstance(text, str) and ADDRESS.match(text) is not None


@dataclass
class Fetcher:
    """Fetches images, each only once.

    Args:
        folder: folder of the images and of the list of fetched addresses.
        store: writes the bytes of an image file and returns its path relative to the folder.
    """

    folder: Path
    store: Callable[[bytes], str]
    failed: int = field(default=0, init=False)
    """Number of addresses that could not be fetched."""
    _silent: Counter[str] = field(default_factory=Counter, init=False)
    _systems: dict[str, Any] = field(default_factory=dict, init=False)

    def fetch(self, addresses: Iterable[str]) -> dict[str, str | Broken]:
        """Return the path of each image relative to the folder, or why it could not be fetched.

        Raises:
            MissingExtraError: if a scheme needs a package that is not installed.
        """
        results: dict[str, str | Broken] = {}
        new_addresses = []
        for address in dict.fromkeys(addresses):
            result = self._known(address)
            if result:
                results[address] = result
            elif (scheme := address.partition("://")[0].lower()) not in schemes():
                results[address] = Broken(
                    f"an address with the scheme {shown(scheme)}", f"use one of {', '.join(schemes())}, or a path"
                )
            else:
                self._open(scheme)
                new_addresses.append(address)
        if new_addresses:
            with ThreadPoolExecutor(1) as pool:  # a new event loop: a notebook already runs one
                results |= pool.submit(lambda: asyncio.run(self._all(new_addresses))).result()
        return results

    async def _all(self, addresses: list[str]) -> dict[str, str | Broken]:
        import httpx

        slots = asyncio.Semaphore(AT_ONCE)
        limits = httpx.Limits(max_connections=AT_ONCE)
        async with httpx.AsyncClient(follow_redirects=True, max_redirects=REDIRECTS, limits=limits) as client:

            async def one(address: str) -> tuple[str, str | Broken]:
                async with slots:
                    return address, await self._one(client, address)

            return dict(await asyncio.gather(*map(one, addresses)))

    async def _one(self, client: httpx.AsyncClient, address: str) -> str | Broken:
        host = host_of(address)
        if self._silent[host] >= GIVE_UP:
            self.failed += 1
            problem = f"an address that was skipped: {shown(host)} did not respond {GIVE_UP} times in a row"
            return Broken(problem, TRY_AGAIN, file=True)
        try:
            data = await self._attempts(client, address)
        except _UnreachableError as error:
            self.failed += 1
            self._silent[host] += 1 if error.no_response else 0
            return Broken(f"{plain_address(address)} cannot be fetched ({error})", TRY_AGAIN, file=True)
        self._silent[host] = 0
        path = self.store(data)
        link = self._link(address)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.write_text(path, encoding="utf-8")
        return path

    async def _attempts(self, client: httpx.AsyncClient, address: str) -> bytes:
        end = time.monotonic() + SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with asyncio.timeout(max(0.0, end - time.monotonic())):
                    return await self._once(client, address)
            except TimeoutError:
                raise _UnreachableError(f"no response within {SECONDS:g} s", no_response=True) from None
            except _UnreachableError as error:
                if not error.temporary or attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(min(PAUSE * 2 ** (attempt - 1), max(0.0, end - time.monotonic())))
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, client: httpx.AsyncClient, address: str) -> bytes:
        import httpx

        scheme = address.partition("://")[0].lower()
        if scheme in FILES:
            return await asyncio.to_thread(self._read, scheme, address)
        try:
            async with client.stream("GET", address, timeout=SECONDS) as answer:
                if answer.status_code != 200:
                    why = f"{answer.status_code} {answer.reason_phrase}".strip()
                    raise _UnreachableError(why, temporary=answer.status_code in TEMPORARY)
                data = bytearray()
                async for chunk in answer.aiter_bytes():
                    data += chunk
                    if len(data) > MOST_BYTES:
                        raise _UnreachableError(f"more than {MOST_BYTES:,} bytes")
                return bytes(data)
        except (httpx.InvalidURL, httpx.TooManyRedirects, httpx.UnsupportedProtocol, ValueError) as error:
            raise _UnreachableError(_message(error)) from error
        except (httpx.HTTPError, OSError) as error:
            raise _UnreachableError(_message(error), temporary=True, no_response=True) from error

    def _read(self, scheme: str, address: str) -> bytes:
        """Read a file from an object store, in a thread, with the same time limit as HTTP."""
        from fsspec.asyn import sync

        system = self._systems[scheme]
        address = f"{scheme}://{address.partition('://')[2]}"  # the packages know schemes in lower case only

        def call(work: str) -> Any:
            if system.async_impl:
                return sync(system.loop, getattr(system, f"_{work}"), address, timeout=SECONDS)
            return getattr(system, work)(address)

        try:
            if (call("info").get("size") or 0) > MOST_BYTES:
                raise _UnreachableError(f"more than {MOST_BYTES:,} bytes")
            return bytes(call("cat_file"))
        except FileNotFoundError as error:
            raise _UnreachableError("no such file") from error
        except PermissionError as error:
            raise _UnreachableError(f"no permission: {_message(error)}") from error
        except _UnreachableError:
            raise
        except Exception as error:  # the packages of object stores raise many types
            if "Credentials" in type(error).__name__:
                raise _UnreachableError(f"no credentials: {_message(error)}") from error
            raise _UnreachableError(_message(error), temporary=True, no_response=isinstance(error, OSError)) from error

    def _open(self, scheme: str) -> None:
        if scheme not in FILES or scheme in self._systems:
            return
        try:
            import fsspec

            self._systems[scheme] = fsspec.filesystem(scheme)
        except ImportError as error:
            raise MissingExtraError(f"Reading {scheme}://", FILES[scheme].removesuffix("fs"), FILES[scheme]) from error

    def _link(self, address: str) -> Path:
        digest = hashlib.sha256(address.encode(errors="surrogateescape")).hexdigest()
        return self.folder / LINKS / digest[:2] / digest

    def _known(self, address: str) -> str:
        """Return the path of an image that was fetched earlier and still exists; empty otherwise."""
        try:
            path = self._link(address).read_text(encoding="utf-8")
        except (OSError, UnicodeError):
            return ""
        return path if path and (self.folder / path).is_file() else ""


def host_of(address: str) -> str:
    """Return the host or the bucket of an address, without user name and password."""
    return re.split(r"[/?#]", address.partition("://")[2])[0].rpartition("@")[2]


def plain_address(address: str) -> str:
    """Return an address for messages, without password and without query, which may contain a key."""
    scheme, _, location = address.partition("://")
    path = re.split(r"[?#]", location)[0].partition("/")[2]
    return shown(f"{scheme}://{host_of(address)}/{path}")


def _message(error: Exception) -> str:
    """Return the message of an error without the addresses in it."""
    text = " ".join(re.sub(r"\S+://\S+", "...", str(error)).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__


def holds_addresses(rows: Iterator[tuple[int, tuple[object, ...] | Broken]]) -> bool:
    """Return whether the first value of any row is an address."""
    values = (cells[0] for _, cells in rows if not isinstance(cells, Broken))
    return any(isinstance(value, str) and is_address(plain_path(value)) for value in values)


def mentions_addresses(path: Path) -> bool:
    """Return whether a text file may contain an address, from a fast search; always true for other files."""
    if path.suffix.lower() not in (".csv", ".tsv", ".tab", ".jsonl", ".ndjson"):
        return True
    with path.open("rb") as file:
        last = b""
        while chunk := file.read(2**20):
            if any(mark in last + chunk for mark in (b"://", b":\0/\0/\0", b"\0:\0/\0/", b":\\/\\/")):
                return True
            last = chunk[-8:]
    return False
