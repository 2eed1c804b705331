"""Convert errors of the hub to `HubError`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from vl2v.errors import HubError
from vl2v.faults.other import network
from vl2v.faults.system import disk_full

# Base class of the client's HTTP library, which depends on its version.
HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]
REFUSALS = {  # by HTTP status: problem, expected, next step
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
LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
BRANCH = re.compile(r"[A-Za-z0-9_]([\w./-]{0,198}\w)?", re.ASCII)


def check_repository(name: str) -> None:
    """Check the format of a repository name, before a request is sent to the hub.

    Raises:
        HubError: if it is not a valid name.
    """
    if not NAME.fullmatch(name) or "--" in name or ".." in name or name.endswith(".git"):
        expected = "user/name, with letters, digits, '-', '_' and '.'"
        raise HubError("This is not the name of a repository.", expected=expected, found=name, next_step="correct it")


def check_labels(licence: str | None, revision: str | None) -> None:
    """Check the format of a licence and a branch, before a request is sent to the hub.

    Raises:
        HubError: if one of them is not valid.
    """
    if licence is not None and not LICENCE.fullmatch(licence):
        expected = "an identifier of the hub with letters, digits, '-', '.' and '+', such as apache-2.0"
        step = "correct --licence, or leave it out"
        raise HubError("This is not a licence.", expected=expected, found=repr(licence)[:100], next_step=step)
    if revision is not None and (not BRANCH.fullmatch(revision) or ".." in revision or "//" in revision):
        expected = "letters, digits, '-', '_', '.' and '/', such as main"
        step = "correct --revision, or leave it out"
        raise HubError(
            "This is not the name of a branch.", expected=expected, found=repr(revision)[:100], next_step=step
        )


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Convert errors of the hub's client to errors with a next step.

    Raises:
        HubError: in place of an error of the client.
    """
    try:
        yield
    except (HTTPError, OSError, ValueError) as error:
        raise network(error) or disk_full(error) or _as_hub_error(error, name) from error


def _as_hub_error(error: Exception, name: str) -> HubError:
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    message = " ".join(str(error).split())[:300]
    if not isinstance(cause, HfHubHTTPError):
        if isinstance(error, ValueError):  # from the validation of the card's metadata
            expected, step = "a licence that the hub knows, e.g. apache-2.0", "correct --licence"
            return HubError("The hub rejected the model card.", expected=expected, found=message, next_step=step)
        step = "check the network and HF_ENDPOINT; then repeat the command"
        return HubError("The hub cannot be reached.", expected="an answer", found=message, next_step=step)
    status = cause.response.status_code
    if status in REFUSALS:
        problem, expected, step = REFUSALS[status]
        found = f"HTTP {status}" + (f": {cause.server_message}" if cause.server_message else "")
        return HubError(problem.format(name=name), expected=expected, found=found, next_step=step)
    step = "correct what it names; with HTTP 5xx, repeat the command later"
    return HubError("The hub rejected the request.", expected="a commit", found=message, next_step=step)
