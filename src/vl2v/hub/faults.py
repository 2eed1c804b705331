"""Convert errors of the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from vl2v.errors import HubError
from vl2v.faults.other import network
from vl2v.faults.system import disk_full

HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]  # of the client's transport, whichever that is by now
REFUSALS = {  # by HTTP status: the problem, what would have been right, the next step
    401: ("The hub rejected the token.", "a valid token", "hf auth login, or export another HF_TOKEN"),
    403: (
        "The token has no permission for {name}.",
        "write permission there",
        "push under your own name, or create a token with write permission",
    ),
    404: (
        "{name} does not exist on the hub.",
        "a repository, and for a private one a token",
        "check user/name and branch",
    ),
}

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}(?<![.-])", re.ASCII)


def check_repository(name: str) -> None:
    """Refuse what cannot be a repository's name, before the hub is asked.

    Raises:
        HubError: if it cannot.
    """
    if not NAME.fullmatch(name) or "--" in name or ".." in name or name.endswith(".git"):
        expected = "user/name, of letters, digits, '-', '_' and '.'"
        raise HubError("This is not the name of a repository.", expected=expected, found=name, next_step="correct it")


@contextmanager
def told(name: str) -> Iterator[None]:
    """Turn what the hub's client raises into an error that says what to do.

    Args:
        name: the repository.

    Raises:
        HubError: instead.
    """
    try:
        yield
    except (HTTPError, OSError, ValueError) as error:
        raise network(error) or disk_full(error) or _as_hub_error(error, name) from error


def _as_hub_error(error: Exception, name: str) -> HubError:
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    said = " ".join(str(error).split())[:300]
    if isinstance(error, ValueError) and not isinstance(cause, HfHubHTTPError):  # from its look at the card's head
        expected, step = "a licence that the hub knows, e.g. apache-2.0", "correct --licence"
        return HubError("The hub rejected the model card.", expected=expected, found=said, next_step=step)
    if not isinstance(cause, HfHubHTTPError):
        step = "check the network and HF_ENDPOINT; then repeat the command"
        return HubError("The hub cannot be reached.", expected="an answer", found=said, next_step=step)
    status = cause.response.status_code
    if status in REFUSALS:
        problem, expected, step = REFUSALS[status]
        found = f"HTTP {status}" + (f": {cause.server_message}" if cause.server_message else "")
        return HubError(problem.format(name=name), expected=expected, found=found, next_step=step)
    step = "correct what it names; with HTTP 5xx, repeat the command later"
    return HubError("The hub rejected the request.", expected="a commit", found=said, next_step=step)
