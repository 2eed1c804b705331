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
TRIES = 5  # in a row without a single new byte
AGAIN = (
    "check the connection and run the same command again to resume. Without internet, use files "
    "that you have with --from"
)


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched whole.

    Attributes:
        path: where it lies.
        bytes: its size.
        sha256: of its content, hexadecimal.
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
    """Fetch a URL to a file, going on from ``<file>.part`` if an earlier try left one.

    Args:
        url: http or https.
        path: the file; if it is there already it is whole, and is only hashed.
        md5: what its MD5 sum has to be, hexadecimal; empty to check none.
        sha256: the same for SHA-256.
        headers: sent with every request, to the first host alone if they authorise.
        progress: told in megabytes.
        pause: seconds before the first repetition; they double each time.

    Raises:
        DataError: if the server cannot be reached or refuses, sends a web page, or the content has another sum. A
            file of another sum is kept as ``<file>.mismatch``.
    """
    part = path.with_name(f"{path.name}.part")
    if not path.exists():
        _attempts(url, part, headers or {}, progress or Silent(), pause)
    part.with_suffix(".etag").unlink(missing_ok=True)
    whole = path if path.exists() else part
    size, sums = whole.stat().st_size, _sums(whole)
    wrong = [
        (f"{kind} {right}", f"{kind} {has}")
        for kind, right, has in (("MD5", md5, sums[0]), ("SHA-256", sha256, sums[1]))
        if right and right != has
    ]
    if wrong:
        kept = path.with_name(f"{path.name}.mismatch")
        whole.replace(kept)
        raise DataError(
            f"{path.name} is not the expected file.",
            expected=wrong[0][0],
            found=f"{wrong[0][1]}, {size:,} bytes, saved as {kept}",
            next_step="run again to download it again; if you trust this file, rename it and pass it with --from",
        )
    whole.replace(path)
    return Fetched(path, size, sums[1])


def _attempts(url: str, part: Path, extra: Mapping[str, str], progress: Progress, pause: float) -> None:
    """Ask until the file is whole; give up after `TRIES` answers in a row that brought nothing."""
    failures = 0
    while True:
        had = _size(part)
        try:
            _receive(url, part, extra, progress)
            return
        except httpx.RequestError as error:
            failures = 0 if _size(part) > had else failures + 1
            if failures >= (2 if isinstance(error, httpx.ConnectError) else TRIES):
                raise _unreachable(url, part, str(error) or type(error).__name__) from error
        except _Busy as error:
            failures += 1
            if failures >= TRIES:
                raise _unreachable(url, part, str(error)) from error
        time.sleep(min(pause * 2.0 ** max(failures - 1, 0), 60.0))


class _Busy(Exception):  # noqa: N818 - a state of the server, raised to ask again
    """The server says to come back later."""


def _receive(url: str, part: Path, extra: Mapping[str, str], progress: Progress) -> None:
    have, note = _size(part), part.with_suffix(".etag")
    headers = {"User-Agent": "vl2v", **extra, "Accept-Encoding": "identity"}  # ranges must not count compressed bytes
    if have:
        headers["Range"] = f"bytes={have}-"
        if note.exists():
            headers["If-Range"] = note.read_text()  # another file there by now: send it whole
    timeout = httpx.Timeout(60.0, connect=20.0)
    with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=timeout) as answer:
        if answer.status_code == 416 and answer.headers.get("content-range", "").endswith(f"/{have}"):
            return  # killed between the last byte and the renaming
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
            for block in answer.iter_raw():  # as it arrives: blocks of a fixed size lose the last one if it breaks off
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


def _unreachable(url: str, part: Path, found: str) -> DataError:
    return DataError(
        f"{url} cannot be downloaded.",
        expected="a response from the server",
        found=f"{found}; {_size(part):,} bytes are downloaded",
        next_step=AGAIN,
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sums(path: Path) -> tuple[str, str]:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            md5.update(block)
            sha256.update(block)
    return md5.hexdigest(), sha256.hexdigest()
