"""Tar files, which may come from strangers, read as streams with limited memory."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

DAMAGED = ("TruncatedHeaderError", "InvalidHeaderError")  # of `tarfile`, which does not document them
EXTENDED = (b"x", b"g", b"X", tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)  # headers that `tarfile` reads whole
MOST_HEADER = 2**20  # bytes of an extended header; usual ones have some hundred
MOST_GLOBAL = 1000  # values of global headers, which apply to all members that follow


class _Member(tarfile.TarInfo):
    """A member. Its header is checked also after the first one, where `tarfile` takes noise for the end."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> Self:  # type: ignore[override]
        """Parse a header.

        Raises:
            ReadError: if it announces a negative size, or too many bytes of a further header.
        """
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in EXTENDED and member.size > MOST_HEADER):
            raise tarfile.ReadError(f"a header that announces {member.size:,} bytes")
        return member

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Read the next header.

        Raises:
            ReadError: if it is damaged or cut off, or there are too many global headers.
        """
        if len(archive.pax_headers) > MOST_GLOBAL:
            raise tarfile.ReadError(f"more than {MOST_GLOBAL:,} values in global headers")
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ not in DAMAGED:  # the end
                raise
            raise tarfile.ReadError(f"damaged after {archive.offset:,} bytes ({error})") from error
        except RecursionError as error:
            raise tarfile.ReadError("too many headers of one member") from error


def members_of(path: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Iterate over the members of a tar file, which may be compressed, with the archive to extract each from.

    Raises:
        tarfile.TarError, OSError, EOFError: if the file is damaged or cannot be read.
    """
    with tarfile.open(path, "r|*", tarinfo=_Member) as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined] # which would grow with every member
            yield archive, member
