"""Access control: allows requests from the server's own pages and from programs, but not from other sites."""

from __future__ import annotations

from starlette.requests import Request

from vl2v.addresses import host_of, is_local
from vl2v.web.faults import ApiError

SECURITY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}


def check_host(request: Request, local: bool) -> None:
    """Reject requests with a foreign host name if the server is local.

    Another site could resolve its own name to 127.0.0.1 (DNS rebinding), and its pages would pass for ours.

    Raises:
        ApiError: 403 for a foreign name; 400 if the header Host is malformed.
    """
    header = request.headers.get("host", "")
    host = host_of(f"//{header}")
    if header and not host:
        raise ApiError(400, "bad_host", "The header Host is malformed: expected a name or an address.", param="host")
    if local and not is_local(host):
        message = (
            "This server only accepts requests to localhost or 127.0.0.1; to open it to others: vl2v serve --host."
        )
        raise ApiError(403, "foreign_host", message)


def check_origin(request: Request) -> None:
    """Reject requests from pages of other sites (cross-site request forgery). Programs send neither header.

    Raises:
        ApiError: 403 for a request from another site.
    """
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    same_origin = origin is None or origin.partition("://")[2] == request.headers.get("host")
    if not same_origin or site not in (None, "same-origin", "none"):
        raise ApiError(403, "foreign_origin", "Requests from pages of other sites are not allowed.")
