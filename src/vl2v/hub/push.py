"""Push a finished run to a repository on the Hugging Face hub, in one commit."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

from vl2v.errors import HubError, RunError
from vl2v.hub.faults import check_repository, told
from vl2v.hub.package import CARD_FILE, KNOWN, Package, make_package
from vl2v.student.files import CARD

OURS = f"student/{CARD}"
HARMLESS = (".gitattributes", CARD_FILE)  # what a repository made by hand begins with


@dataclass(frozen=True)
class Pushed:
    """What was sent, or would have been.

    Attributes:
        sizes: bytes by path in the repository.
        folder: where a dry run wrote the files; None if they were sent.
        url: of the commit; empty in a dry run.
    """

    sizes: Mapping[str, int]
    folder: Path | None = None
    url: str = ""


def push(
    run: Path,
    name: str,
    *,
    private: bool = False,
    licence: str | None = None,
    revision: str | None = None,
    dry_run: Path | None = None,
) -> Pushed:
    """Publish a run's student with a model card; an earlier student in the same repository is replaced.

    Args:
        run: a finished run's folder.
        name: the repository, ``user/name``; made if it is not there.
        private: only the user may see it; refused where the repository is there already and public.
        licence: of the student, by the hub's name, e.g. ``apache-2.0``.
        revision: a branch, made if it is not there; None is the main one.
        dry_run: write what would be sent into this folder, new or empty, and send nothing.

    Raises:
        HubError: if the name is malformed, there is no token or right, the repository holds something else, or the hub
            cannot be reached.
        RunError: if the run is not finished, or the dry run's folder is taken.
        MissingExtraError: see `make_package`.
    """
    check_repository(name)
    if dry_run is not None:
        _check_empty(dry_run)
        package = make_package(run, name, licence)
        package.write(dry_run)
        return Pushed(package.sizes, dry_run)
    if get_token() is None:
        step = "hf auth login, or export HF_TOKEN=...; --dry-run shows what would be sent"
        raise HubError(
            "There is no token for the hub.", expected="a token with write permission", found="none", next_step=step
        )
    package = make_package(run, name, licence)
    with told(name):
        return Pushed(package.sizes, url=_send(package, name, private, revision))


def clear(folder: Path) -> Path:
    """Remove what an earlier dry run left in a folder of its own."""
    if (folder / OURS).is_file():
        shutil.rmtree(folder)
    return folder


def _send(package: Package, name: str, private: bool, revision: str | None) -> str:
    api = HfApi()
    api.create_repo(name, private=private or None, exist_ok=True)
    if revision is not None:
        api.create_branch(name, branch=revision, exist_ok=True)
    info = api.model_info(name, revision=revision)
    if private and not info.private:
        step = "make it private in its settings on the hub, or push to another name"
        raise HubError(f"{name} is public.", expected="a private repository", found="a public one", next_step=step)
    there = [file.rfilename for file in info.siblings or ()]
    _check_content(name, there)
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(path, str(part) if isinstance(part, Path) else part) for path, part in package.files.items()
    ]
    stale = [path for path in there if path.startswith(KNOWN) and path not in package.files]
    operations += [CommitOperationDelete(path) for path in stale]
    message = "A student distilled with vl2v"
    return api.create_commit(name, operations, commit_message=message, revision=revision).commit_url


def _check_content(name: str, there: Iterable[str]) -> None:
    strange = sorted(path for path in there if path not in HARMLESS)
    if strange and OURS not in strange:
        found = ", ".join(strange[:5]) + (", ..." if len(strange) > 5 else "")
        step = "push to another name"
        raise HubError(
            f"{name} contains something else.",
            expected="an empty repository, or a student of vl2v",
            found=found,
            next_step=step,
        )


def _check_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        step = "choose another --out, or omit it"
        raise RunError(f"{folder} is not empty.", expected="a new or empty folder", found="other files", next_step=step)
