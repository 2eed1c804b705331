"""Download a published student from the hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download

from vl2v.hub.faults import check_repository, told


def fetch(name: str) -> Path:
    """The folder of a published student, from the hub or the hub's cache on this machine.

    Args:
        name: ``hf:user/name``, or ``hf:user/name@revision``.

    Raises:
        HubError: if it cannot be had.
    """
    repository, _, revision = name.removeprefix("hf:").partition("@")
    check_repository(repository)
    with told(repository):
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=["student/*"]))
