"""Datasets of the Hugging Face hub: ``hf:user/name`` or ``hf:user/name@revision``."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from vl2v.errors import DataError
from vl2v.sources.base import Source
from vl2v.sources.columnar import Columnar, parquet_files, parts_of

SCHEME = "hf:"
CONVERTED = "refs/convert/parquet"  # branch with the hub's conversion of other formats to Parquet


def claims(data: str) -> bool:
    """Return whether an address is that of a dataset on the hub."""
    return data.startswith(SCHEME)


def open_hub(data: str) -> Columnar:
    """Open a dataset, and download its Parquet files unless they are in the hub's local cache.

    Raises:
        DataError: if it is not available, or has no Parquet files.
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

    # Versions of the client use different HTTP packages; the base class of this error is the one that they raise.
    transport_error = cast("type[Exception]", errors.HfHubHTTPError.__bases__[0])
    try:
        folder = snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=["*.parquet"])
        return Path(folder)
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
