"""Push a finished run to a repository on the Hugging Face hub, in one commit."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

from vl2v.errors import HubError, RunError
from vl2v.hub.faults import check_labels, check_repository, hub_errors
from vl2v.hub.package import CARD_FILE, KNOWN, Files, is_published, make_package
from vl2v.progress import Progress
from vl2v.student.files import CARD
from vl2v.writing import check_folder
from vl2v_runtime.names import shown

OURS = f"student/{CARD}"
HARMLESS = (".gitattributes", CARD_FILE)  # files of a repository that was created by hand


@dataclass(frozen=True)
class Pushed:
    """The result of a push or of a dry run.

    Attributes:
        sizes: size in bytes by path in the repository.
        folder: folder to which a dry run has written the files. None if they were uploaded.
        url: address of the commit. Empty after a dry run.
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
    progress: Progress | None = None,
) -> Pushed:
    """Publish the student of a run with a model card. An earlier student in the same repository is replaced.

    Args:
        name: the repository, ``user/name``. It is created if it does not exist.
        private: whether the repository is private. An existing public repository is then an error.
        licence: licence of the student as an identifier of the hub, e.g. ``apache-2.0``.
        revision: a branch, which is created if it does not exist. None is the main branch.
        dry_run: a new or empty folder to which the files are written, or `dry_run_folder`, in which an earlier dry run
            is replaced. Nothing is uploaded.
        progress: receives warnings.

    Raises:
        HubError: if the name, the licence or the branch is invalid, the token or its permission is missing, the
            repository contains other files, or the hub cannot be reached.
        RunError: if the run is not finished, or the folder of the dry run contains other files.
        AccessError: if the folder of the dry run is a link that leads out of the run.
        Vl2vError, ModelError: see `make_package`.
    """
    check_repository(name)
    check_labels(licence, revision)
    if dry_run is not None:
        _check_dry_run(run, dry_run)
    files = make_package(run, name, licence, progress)
    if dry_run is not None:
        if dry_run == dry_run_folder(run) and dry_run.exists():
            shutil.rmtree(dry_run)
        _write(files, dry_run)
        return Pushed(_sizes(files), dry_run)
    if get_token() is None:
        step = "hf auth login, or export HF_TOKEN=...; --dry-run shows what would be sent"
        raise HubError(
            "There is no token for the hub.", expected="a token with write permission", found="none", next_step=step
        )
    with hub_errors(name):
        return Pushed(_sizes(files), url=_send(files, name, private, revision))


def dry_run_folder(run: Path) -> Path:
    """Return the default folder of a dry run."""
    return run / "hub"


def _check_dry_run(run: Path, folder: Path) -> None:
    """Check that a dry run can be written to a folder, and that it replaces only files of an earlier one."""
    check_folder(run)
    usual = folder == dry_run_folder(run)
    if not folder.exists() and not folder.is_symlink():
        return
    problem, found = "not a folder", "a link" if folder.is_symlink() else "a file"
    if folder.is_dir() and not (usual and folder.is_symlink()):
        others = _others_in(folder) if usual else [path.name for path in folder.iterdir()]
        if not others:
            return
        problem, found = "not empty", ", ".join(map(shown, sorted(others)[:5]))
    step = "choose another --out" + ("" if usual else ", or omit it")
    raise RunError(f"{shown(folder)} is {problem}.", expected="a new or empty folder", found=found, next_step=step)


def _others_in(folder: Path) -> list[str]:
    """Return the names of files that no dry run has written; of all files without the one that it writes first."""
    paths = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    names = {path.relative_to(folder).as_posix(): path.is_symlink() for path in paths}
    begun = (folder / OURS).is_file()
    return [name for name, is_link in names.items() if is_link or not begun or not is_published(name)]


def _sizes(files: Files) -> dict[str, int]:
    return {name: part.stat().st_size if isinstance(part, Path) else len(part) for name, part in files.items()}


def _write(files: Files, folder: Path) -> None:
    for name, part in sorted(files.items(), key=lambda entry: entry[0] != OURS):  # by OURS, a dry run is recognised
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(part.read_bytes() if isinstance(part, Path) else part)


def _send(files: Files, name: str, private: bool, revision: str | None) -> str:
    api = HfApi()
    api.create_repo(name, private=private or None, exist_ok=True)
    if revision is not None:
        api.create_branch(name, branch=revision, exist_ok=True)
    info = api.model_info(name, revision=revision)
    if private and not info.private:
        step = "make it private in its settings on the hub, or push to another name"
        raise HubError(f"{name} is public.", expected="a private repository", found="a public one", next_step=step)
    existing = [file.rfilename for file in info.siblings or ()]
    _check_content(name, existing)
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(path, str(part) if isinstance(part, Path) else part) for path, part in files.items()
    ]
    stale = [path for path in existing if path.startswith(KNOWN) and path not in files]
    operations += [CommitOperationDelete(path) for path in stale]
    message = "A student distilled with vl2v"
    return api.create_commit(name, operations, commit_message=message, revision=revision).commit_url


def _check_content(name: str, existing: Iterable[str]) -> None:
    others = sorted(path for path in existing if path not in HARMLESS)
    if others and OURS not in others:
        found, step = ", ".join(others[:5]) + (", ..." if len(others) > 5 else ""), "push to another name"
        expected = "an empty repository, or a student of vl2v"
        raise HubError(f"{name} does not contain a student of vl2v.", expected=expected, found=found, next_step=step)
