"""Sources of a benchmark: the Hugging Face hub, official archives, a URL, or local files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from vl2v.datasets.camera_traps import is_annotation
from vl2v.datasets.download import AGAIN, download
from vl2v.datasets.facts import Archive, Benchmark
from vl2v.datasets.registry import is_plain
from vl2v.datasets.unpack import is_archive
from vl2v.errors import ConfigError, DataError
from vl2v.progress import Progress

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
FORMS = "official, hub, <owner>/<name>[@<revision>], an http(s) address, or a path: a folder, .parquet, .zip, .tar(.gz)"


@dataclass(frozen=True)
class Source:
    """A source of a benchmark.

    Attributes:
        text: description for the manifest.
        hub: name of the dataset on the hub, if it is the source.
        revision: revision of the dataset on the hub; empty for the newest.
        local: path of a local file or folder.
    """

    text: str
    hub: str = ""
    revision: str = ""
    archives: tuple[Archive, ...] = ()
    local: Path | None = None


@dataclass(frozen=True)
class Files:
    """The files of a source on this machine.

    Attributes:
        paths: Parquet files, archives, lists, annotations and folders, sorted by name.
        revision: revision of the content, if the source has one.
        notes: name, size in bytes and SHA-256 of each downloaded file.
    """

    paths: tuple[Path, ...]
    revision: str = ""
    notes: tuple[dict[str, Any], ...] = ()


def choose(benchmark: Benchmark, text: str | None) -> Source:
    """Parse the value of --from; None selects the default source of the benchmark.

    Raises:
        ConfigError: if the value is invalid, or the benchmark has no such source.
    """
    text = text or ("hub" if benchmark.hub else "official")
    if text == "official":
        return Source(f"official archives: {', '.join(a.url for a in benchmark.archives)}", archives=benchmark.archives)
    if text == "hub":
        if not benchmark.hub:
            raise ConfigError(
                f"{benchmark.name} has no complete dataset on the hub.",
                expected="--from official, or <owner>/<name> of another dataset",
                found="--from hub",
                next_step="choose another source with --from",
            )
        return Source(f"hub: {benchmark.hub}", hub=benchmark.hub, revision=benchmark.revision)
    if re.match(r"https?://", text):
        name = re.split(r"[?#]", text)[0].rstrip("/").rsplit("/", 1)[-1]
        return Source(text, archives=(Archive(text, name if is_plain(name) else "archive"),))
    if (local := Path(text).expanduser()).exists():
        return Source(f"local: {local.resolve()}", local=local)
    if HUB_NAME.fullmatch(text) and not is_archive(local) and local.suffix != ".parquet":
        name, _, revision = text.partition("@")
        return Source(f"hub: {name}", hub=name, revision=revision)
    raise ConfigError("Unknown source in --from.", expected=FORMS, found=text, next_step="correct --from")


def fetch(source: Source, folder: Path, progress: Progress) -> Files:
    """Download the files of a source; complete downloads of an earlier process are reused.

    Raises:
        DataError: if a file cannot be downloaded, or there is no usable file.
    """
    if source.local is not None:
        return Files(_usable(source.local))
    revision, archives, headers = _on_hub(source) if source.hub else ("", source.archives, {})
    notes, paths = [], []
    for archive in archives:
        path = folder / archive.name
        path.parent.mkdir(parents=True, exist_ok=True)
        got = download(archive.url, path, md5=archive.md5, sha256=archive.sha256, headers=headers, progress=progress)
        paths.append(got.path)
        notes.append({"name": archive.name, "url": archive.url, "bytes": got.bytes, "sha256": got.sha256})
    return Files(tuple(paths if source.hub else sorted(paths)), revision, tuple(notes))


def _usable(local: Path) -> tuple[Path, ...]:
    """Return the Parquet files of a path, or its archives, lists and annotations, or else the folder itself."""
    if local.is_file():
        if local.suffix.lower() == ".parquet" or is_archive(local):
            return (local,)
        found = f"the file {local.name}"
        raise ConfigError("--from cannot be read.", expected=FORMS, found=found, next_step="correct --from")
    if tables := tuple(sorted(path for path in local.rglob("*.parquet") if not _hidden(path, local))):
        return tables
    tops = sorted(path for path in local.iterdir() if path.is_file() and not path.name.startswith("."))
    if any(is_archive(path) and not is_annotation(path) for path in tops):
        return tuple(p for p in tops if is_archive(p) or is_annotation(p) or p.suffix.lower() == ".txt")
    return (*(path for path in tops if is_archive(path)), local)


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _on_hub(source: Source) -> tuple[str, tuple[Archive, ...], dict[str, str]]:
    """Return the commit of a dataset, its Parquet files sorted by name, and the headers to download them.

    The client of the hub is used only to list them, because it restarts interrupted downloads from the beginning.
    """
    from huggingface_hub import HfApi, errors, get_token, hf_hub_url
    from huggingface_hub.hf_api import RepoFile

    # Versions of the client use different HTTP packages; the common base of their exceptions is this class's parent.
    transport_error = cast("type[Exception]", errors.HfHubHTTPError.__bases__[0])
    try:
        api = HfApi()
        revision = api.dataset_info(source.hub, revision=source.revision or None).sha or source.revision
        entries = list(api.list_repo_tree(source.hub, repo_type="dataset", revision=revision, recursive=True))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise DataError(
            f"{source.hub} is not available on the hub.",
            expected="a public dataset, or a login with read permission (hf auth login)",
            found=str(error).split("\n")[0][:200],
            next_step="correct --from, or use --from official",
        ) from error
    except (OSError, transport_error, errors.OfflineModeIsEnabled) as error:
        raise DataError(
            f"{source.hub} cannot be downloaded from the hub.",
            expected="a response from huggingface.co",
            found=str(error).split("\n")[0][:200] or type(error).__name__,
            next_step=AGAIN,
        ) from error
    files = [entry for entry in entries if isinstance(entry, RepoFile) and entry.path.endswith(".parquet")]
    tables = sorted((f for f in files if all(map(is_plain, f.path.split("/")))), key=lambda file: file.path)
    if not tables:
        step = "try its branch of converted files: --from <owner>/<name>@refs/convert/parquet"
        raise DataError(
            f"{source.hub} contains no Parquet files.", expected="Parquet files", found="none", next_step=step
        )
    urls = [hf_hub_url(source.hub, file.path, repo_type="dataset", revision=revision) for file in tables]
    sums = [file.lfs.sha256 if file.lfs else "" for file in tables]
    headers = {"Authorization": f"Bearer {token}"} if (token := get_token()) else {}
    return revision, tuple(Archive(u, f.path, sha256=s) for u, f, s in zip(urls, tables, sums, strict=True)), headers
