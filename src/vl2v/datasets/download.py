"""Resumable downloads over HTTP."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from vl2v.errors import DataError
from vl2v.progress import Progress, Silent
from vl2v.writing import in_place, write_text

MB = 1_000_000
TRIES = 5  # consecutive attempts without a new byte
AGAIN = (
    "check the connection and run the same command again to resume. Without internet, use files "
    "that you have with --from"
)


@dataclass(frozen=True)
class Fetched:
    """A complete download.

    Attributes:
        sha256: SHA-256 of the content, in hexadecimal.
    """

    path: Path
    bytes: int
    sha256: str


def download(
    url: str,
    path: Path,
    *,
    md5: str = "",
    sha256: str = "",
    headers: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    pause: float = 2.0,
) -> Fetched:
    """Download a URL to a file, resuming from ``<file>.part`` if it exists.

    Args:
        path: path of the file. If it exists, it is complete and only its hash is computed.
        md5: expected MD5 sum, in hexadecimal; empty to skip the check.
        sha256: expected SHA-256, in hexadecimal; empty to skip the check.
        headers: headers of every request. Credentials are sent only to the first host.
        pause: seconds before the first retry; doubled for each further one.

    Raises:
        DataError: if the server cannot be reached, rejects the request or sends a web page, or if the hash differs. A
            file with another hash is saved as ``<file>.mismatch``.
    """
    part = path.with_name(f"{path.name}.part")
    if not path.exists():
        _attempts(url, part, headers or {}, progress or Silent(), pause)
    part.with_suffix(".etag").unlink(missing_ok=True)
    file = path if path.exists() else part
    size, sums = file.stat().st_size, _sums(file)
    for kind, right, has in (("MD5", md5, sums[0]), ("SHA-256", sha256, sums[1])):
        if right and right != has:
            mismatch = path.with_name(f"{path.name}.mismatch")
            file.replace(mismatch)
            raise DataError(
                f"{path.name} is not the expected file.",
                expected=f"{kind} {right}",
                found=f"{kind} {has}, {size:,} bytes, saved as {mismatch}",
                next_step="run again to download it again; if you trust this file, rename it and pass it with --from",
            )
    file.replace(path)
    return Fetched(path, size, sums[1])


def _attempts(url: str, part: Path, extra: Mapping[str, str], progress: Progress, pause: float) -> None:
    """Retry until the file is complete; give up after `TRIES` consecutive attempts without a new byte."""
    failures = 0
    while True:
        had = _size(part)
        try:
            _receive(url, part, extra, progress)
            return
        except (httpx.RequestError, _Busy) as error:
            failures = 0 if _size(part) > had else failures + 1
            if failures >= (2 if isinstance(error, httpx.ConnectError) else TRIES):
                raise DataError(
                    f"{url} cannot be downloaded.",
                    expected="a response from the server",
                    found=f"{str(error) or type(error).__name__}; {_size(part):,} bytes are downloaded",
                    next_step=AGAIN,
                ) from error
        time.sleep(min(pause * 2.0 ** max(failures - 1, 0), 60.0))


class _Busy(Exception):  # noqa: N818 - a temporary state of the server, after which the request is repeated
    """The server asks to retry later."""


def _receive(url: str, part: Path, extra: Mapping[str, str], progress: Progress) -> None:
    have, note = _size(part), part.with_suffix(".etag")
    headers = {"User-Agent": "vl2v", **extra, "Accept-Encoding": "identity"}  # ranges must not count compressed bytes
    if have:
        headers["Range"] = f"bytes={have}-"
        if note.exists():
            headers["If-Range"] = note.read_text()  # if the file has changed, the server sends all of it
    timeout = httpx.Timeout(60.0, connect=20.0)
    with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=timeout) as answer:
        if answer.status_code == 416 and answer.headers.get("content-range", "").endswith(f"/{have}"):
            return  # an earlier process was killed after the last byte
        if answer.status_code in (408, 416, 429) or answer.status_code >= 500:
            if answer.status_code == 416:
                part.unlink(missing_ok=True)
            raise _Busy(f"HTTP {answer.status_code}")
        _check_answer(url, answer)
        goes_on = answer.status_code == 206 and answer.headers.get("content-range", "").startswith(f"bytes {have}-")
        have = have if goes_on else 0
        if (tag := answer.headers.get("etag", "")) and not tag.startswith("W/"):
            write_text(note, tag)
        else:
            note.unlink(missing_ok=True)
        length = int(answer.headers.get("content-length", 0))
        title = f"downloading {part.stem}, MB"
        with progress.stage(title, (have + length) // MB, have // MB) as advance, in_place(part) as file:
            file.truncate(have)
            file.seek(have)
            for block in answer.iter_raw():  # fixed blocks would lose the last one if it breaks
                file.write(block)
                advance((have + len(block)) // MB - have // MB)
                have += len(block)


def _check_answer(url: str, answer: httpx.Response) -> None:
    kind = answer.headers.get("content-type", "")
    if answer.status_code < 300 and not kind.startswith("text/html"):
        return
    page = answer.status_code < 300
    raise DataError(
        f"{url} does not return the file.",
        expected="the file",
        found="a web page, as Google Drive sends if the quota of a file is exhausted" if page else
        f"HTTP {answer.status_code}",
        next_step="try again tomorrow, or get the file elsewhere and pass it with --from",
    )  # fmt: skip


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sums(path: Path) -> tuple[str, str]:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            md5.update(block)
            sha256.update(block)
    return md5.hexdigest(), sha256.hexdigest()
