"""Fetch images from URLs without giving clients access to the vendor's network."""

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
SPECIAL = tuple(  # in IANA's special-purpose registries, but global according to some versions of Python
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "3fff::/20"))
)
Resolve = Callable[[str, int], Awaitable[list[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """Resolve a host name to all its addresses."""
    entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in entries]


def public(address: str) -> bool:
    """Whether an address is public: not private, loopback, link-local, reserved or multicast.

    An IPv6 address must be global unicast (2000::/3), or contain a public IPv4 address (IPv4-mapped, or NAT64 with the
    well-known prefix).
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
    inner = [ip.sixtofour, *(ip.teredo or ())]  # a global address may contain an IPv4 address
    return ip in GLOBAL_UNICAST and _public(ip) and all(v4 is None or _public(v4) for v4 in inner)


def _public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return ip.is_global and not ip.is_multicast and not any(ip in net for net in SPECIAL if net.version == ip.version)


class Links:
    """Fetches files from allowed hosts only. A name is resolved once, and the connection uses the checked address.

    Args:
        hosts: allowed hosts, ``name`` (with the default port of the scheme) or ``name:port``. If empty, every URL is
            rejected.
        most_bytes: maximum size of a file in bytes.
        seconds: time limit per file, including redirects.
        acceptable: whether an address is allowed; tests fetch from this machine.
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
        return ssl.create_default_context()  # created once, since it reads the certificates of the system

    async def fetch(self, url: str, param: str, deadline: float = math.inf) -> bytes:
        """Fetch the file at a URL.

        Args:
            url: the URL that the client sent.
            param: position in the request, for the message.
            deadline: time of the event loop's clock after which no file is fetched.

        Raises:
            ApiError: 400 if the URL is not allowed or cannot be fetched; 413 if the file is too large.
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
        # The environment is ignored, since a proxy would resolve the name again.
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
        """Send one request; returns the file, or the target of a redirect."""
        parts, port = self._allowed(url, param)
        host = str(parts.hostname)
        addresses = await self._resolve(host, port)
        if not addresses or not all(self._acceptable(address) for address in addresses):
            raise _refused(param)
        target = httpx.URL(url).copy_with(host=addresses[0], port=port)
        headers = {"host": parts.netloc, "accept": "image/*", "accept-encoding": "identity"}
        tls = {"sni_hostname": host}  # the certificate is checked against the name, not the address
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
