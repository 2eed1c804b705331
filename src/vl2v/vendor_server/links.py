"""Fetch image URLs safely, without giving clients access to the vendor's network."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx

from vl2v.web.faults import bad_image, too_large

REDIRECTS = 3
GLOBAL_UNICAST, NAT64 = ipaddress.ip_network("2000::/3"), ipaddress.ip_network("64:ff9b::/96")
SPECIAL = tuple(  # in IANA's special-purpose registries, and global to some versions of Python
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "3fff::/20"))
)
Resolve = Callable[[str, int], Awaitable[list[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host name, asked of the system once."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def public(address: str) -> bool:
    """True for an address of the open internet: not private, loopback, link-local, reserved or multicast.

    An IPv6 address has to be global unicast (2000::/3), or carry a public IPv4 address in one of the two forms that
    reach it (IPv4-mapped, and NAT64 with the well-known prefix).
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return _public(ip)
    if ip.ipv4_mapped is not None:
        return _public(ip.ipv4_mapped)
    if ip in NAT64:
        return _public(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    inner = [ip.sixtofour, *(ip.teredo or ())]  # an IPv4 address may be wrapped in a global one
    return ip in GLOBAL_UNICAST and _public(ip) and all(v4 is None or _public(v4) for v4 in inner)


def _public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return ip.is_global and not ip.is_multicast and not any(ip in net for net in SPECIAL if net.version == ip.version)


class Links:
    """Fetches from allowed hosts only; a name is resolved once, and the address that was checked is the one asked.

    Args:
        hosts: ``name`` (its scheme's own port) or ``name:port``; none refuses every URL.
        most_bytes: of one file.
        seconds: for one file, redirects included.
        resolver: names to addresses.
        acceptable: which addresses may be asked; tests fetch from this machine.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        most_bytes: int,
        seconds: float,
        *,
        resolver: Resolve = resolve,
        acceptable: Callable[[str], bool] = public,
    ) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._most, self._seconds = most_bytes, seconds
        self._resolve, self._acceptable = resolver, acceptable

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()  # reads the system's certificates, so once

    async def fetch(self, url: str, param: str, deadline: float = math.inf) -> bytes:
        """The file at a URL.

        Args:
            url: as the client wrote it.
            param: its place in the request, for the message.
            deadline: by the event loop's clock, when to give up even if this file's own time is not over.

        Raises:
            ApiError: 400 if it may not be, or cannot be fetched; 413 if it is too large.
        """
        if not self._hosts:
            message = "This service does not accept image URLs; send the image itself, as base64 or a data URI."
            raise bad_image(message, param, "image_url_refused")
        try:
            end = min(deadline, asyncio.get_running_loop().time() + self._seconds)
            async with asyncio.timeout_at(end):
                return await self._follow(url, param)
        except (TimeoutError, OSError, httpx.HTTPError, httpx.InvalidURL, UnicodeError):
            raise bad_image("The image could not be fetched.", param, "image_url_failed") from None

    async def _follow(self, url: str, param: str) -> bytes:
        # No environment: a proxy of the seller's would resolve the name once more.
        async with httpx.AsyncClient(
            verify=self._tls, trust_env=False, follow_redirects=False, timeout=self._seconds
        ) as client:
            for _ in range(REDIRECTS + 1):
                answer = await self._once(client, url, param)
                if isinstance(answer, bytes):
                    return answer
                url = urljoin(url, answer)
        raise bad_image(f"Expected at most {REDIRECTS} redirects.", param, "image_url_failed")

    async def _once(self, client: httpx.AsyncClient, url: str, param: str) -> bytes | str:
        """Ask for a URL: the file, or where it is said to be instead."""
        parts, port = self._allowed(url, param)
        host = str(parts.hostname)
        addresses = await self._resolve(host, port)
        if not addresses or not all(self._acceptable(address) for address in addresses):
            raise _refused(param)
        target = httpx.URL(url).copy_with(host=addresses[0], port=port)
        headers = {"host": parts.netloc, "accept": "image/*", "accept-encoding": "identity"}
        tls = {"sni_hostname": host}  # the certificate has to be the name's, not the address's
        async with client.stream("GET", target, headers=headers, extensions=tls) as answer:
            if answer.is_redirect and "location" in answer.headers:
                return answer.headers["location"]
            if answer.status_code != 200 or "content-encoding" in answer.headers:
                raise bad_image("The image could not be fetched.", param, "image_url_failed")
            data = bytearray()
            async for chunk in answer.aiter_raw():
                data += chunk
                if len(data) > self._most:
                    message = f"Expected an image file of at most {self._most} bytes."
                    raise too_large(message, param, "image_too_large")
            return bytes(data)

    def _allowed(self, url: str, param: str) -> tuple[SplitResult, int]:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _refused(param) from None
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or "\\" in url:
            raise _refused(param)
        name = parts.hostname if port is None else f"{parts.hostname}:{port}"
        if name.lower() not in self._hosts:
            raise _refused(param)
        return parts, port or (443 if parts.scheme == "https" else 80)


def _refused(param: str) -> Exception:
    return bad_image("Images from this host are not allowed.", param, "image_url_refused")
