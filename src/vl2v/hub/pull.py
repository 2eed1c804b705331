"""Download a published student from the hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download

from vl2v.hub.faults import check_repository, hub_errors


def fetch(name: str) -> Path:
    """Download a published student, unless it is in the local cache of the hub, and return its folder.

    Args:
        name: ``hf:user/name``, or ``hf:user/name@revision``.

    Raises:
        HubError: if it cannot be downloaded.
    """
    repository, _, revision = name.removeprefix("hf:").partition("@")
    check_repository(repository)
    with hub_errors(repository):
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=["student/*"]))
