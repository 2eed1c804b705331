"""Network addresses: which of them are local to this machine."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit


def is_local(host: str) -> bool:
    """True for a host that only this machine can reach: ``localhost`` or a loopback address."""
    try:
        ip = ip_address(host.strip("[]"))
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return ip.is_loopback or (mapped is not None and mapped.is_loopback)


def host_of(url: str) -> str:
    """The host of a URL in lower case; empty if the URL has none or is malformed."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
