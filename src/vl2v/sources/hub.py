"""Datasets of the Hugging Face hub: ``hf:user/name``, with ``@revision`` where one is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from vl2v.errors import DataError
from vl2v.sources.base import Source
from vl2v.sources.columnar import Columnar, parquet_files, parts_of

SCHEME = "hf:"
CONVERTED = "refs/convert/parquet"  # the branch in which the hub offers other datasets as Parquet


def claims(data: str) -> bool:
    """Whether a text names a dataset of the hub."""
    return data.startswith(SCHEME)


def open_hub(data: str) -> Columnar:
    """Download the Parquet files of a dataset, or take them from the hub's cache on this machine, and open them.

    Raises:
        DataError: if it cannot be had, or has no Parquet files.
        MissingExtraError: if pyarrow is not installed.
    """
    name, _, revision = data.removeprefix(SCHEME).partition("@")
    folder = _fetch(name, revision or None)
    files = parquet_files(folder)
    if not files and not revision:
        folder = _fetch(name, CONVERTED)
        files = parquet_files(folder)
    if not files:
        raise DataError(
            f"{data} has no Parquet files.",
            expected="Parquet files with images",
            found="none",
            next_step="download it, and give the folder of its images",
        )
    return Columnar(data, parts_of(files, folder), version=f"{name} {folder.name}")


def _fetch(name: str, revision: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download

    # The client's versions speak through different HTTP packages; what all those raise is this class's parent.
    transport_error = cast("type[Exception]", errors.HfHubHTTPError.__bases__[0])
    try:
        found = snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=["*.parquet"])
        return Path(found)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise DataError(
            f"{SCHEME}{name} is not available on the hub.",
            expected="a public dataset, or a login with read permission (hf auth login)",
            found=str(error).split("\n")[0][:200],
            next_step="correct the name: hf:user/name or hf:user/name@revision",
        ) from error
    except (OSError, transport_error, errors.LocalEntryNotFoundError) as error:
        raise DataError(
            f"{SCHEME}{name} cannot be downloaded from the hub.",
            expected="a response from huggingface.co, or a copy in the hub's cache on this machine",
            found=str(error).split("\n")[0][:200] or type(error).__name__,
            next_step="run the command again; downloaded files are not downloaded again",
        ) from error


HUB = Source("a dataset of the Hugging Face hub (hf:user/name)", claims, open_hub)
