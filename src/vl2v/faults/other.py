"""Convert errors of certificates, proxies and parsers."""

from __future__ import annotations

import errno
import json
import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from vl2v.errors import AccessError, ConfigError, DamagedError, MissingExtraError, Vl2vError
from vl2v.faults.system import path_of
from vl2v.locations import Location, location_of
from vl2v_runtime.names import shown

CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "https_proxy", "http_proxy")


def network(error: BaseException) -> Vl2vError | None:
    """Convert errors of certificates and proxies in the environment, which occur before anything is sent."""
    message = " ".join(str(error).split())[:200]
    if isinstance(error, ImportError) and "socks" in message.lower():
        return MissingExtraError(f"The proxy {_proxy()}", "socks", "socksio")
    if isinstance(error, ValueError) and "proxy" in message.lower() and _proxy():
        return ConfigError(
            "The proxy cannot be used.",
            expected="http://host:port, or socks5://host:port",
            found=_proxy(),
            next_step="correct it, or unset it: env -u ALL_PROXY -u HTTPS_PROXY -u HTTP_PROXY vl2v ...",
        )
    if not isinstance(error, OSError) or error.filename is not None:
        return None
    certificates = {f"{n}={v}": v for n in CERTIFICATES if (v := os.environ.get(n))}
    missing = [name for name, path in certificates.items() if not Path(path).exists()]
    if missing and ("CA certificate" in message or error.errno == errno.ENOENT):
        problem, found = "The certificate file is missing.", f"{', '.join(missing)}, which does not exist"
        step = "correct the variable, or unset it to use the default certificates"
    elif isinstance(error, ssl.SSLError):
        problem, found = "The certificate file cannot be read.", ", ".join([*certificates, message])
        step = "correct the file" + (", or unset the variable to use the default certificates" if certificates else "")
    else:
        return None
    return ConfigError(problem, expected="certificates in PEM", found=found, next_step=step)


def _proxy() -> str:
    """Return the first variable of a proxy that is set, as ``name=value`` without a password."""
    for name in PROXIES:
        if value := os.environ.get(name):
            return f"{name}={value.rpartition('@')[2] if '@' in value else value}"
    return ""


def content(error: BaseException, locations: Sequence[Location]) -> Vl2vError | None:
    """Convert errors of parsers and encodings."""
    path = path_of(error)
    location = location_of(path, locations)
    name, message = str(path or "A file"), " ".join(str(error).split())[:200]
    step = "write it again, or restore a backup" + (
        f"; it belongs to {location.purpose} ({location.option})" if location else ""
    )
    parsing = {RecursionError: "plain values", json.JSONDecodeError: "JSON", UnicodeDecodeError: "text in UTF-8"}
    if expected := next((words for kind, words in parsing.items() if isinstance(error, kind)), ""):
        found = "values nested too deeply" if isinstance(error, RecursionError) else message
        return DamagedError(f"{name} cannot be read.", expected=expected, found=found, next_step=step)
    if not isinstance(error, UnicodeEncodeError):
        return None
    if "surrogates" in error.reason:
        return AccessError(
            "A name is not UTF-8.",
            expected="files and folders with names in UTF-8",
            found=shown(error.object)[:200],
            next_step="rename it; convmv renames many",
        )
    return AccessError(
        "A name or text cannot be written.",
        expected=f"characters of the encoding {error.encoding}",
        found=repr(error.object[error.start : error.end])[:60],
        next_step="rename the file, or use a UTF-8 locale: PYTHONUTF8=1, or LANG=C.UTF-8",
    )
