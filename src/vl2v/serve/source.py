"""The served file, reloaded when another process changes it, such as `vl2v classes add`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vl2v_runtime import Model

Signature = tuple[int, int, int]


class Source:
    """The file of the served model.

    Args:
        path: path of the .onnx file, which is replaced as a whole when it changes.
    """

    def __init__(self, path: Path, load: Callable[[], Model]) -> None:
        self._path, self._load = path, load
        self._loaded_signature = self._signature()

    def changed(self) -> bool:
        """Whether the file has changed since the last `load`; fast enough for every request."""
        now = self._signature()
        return now is not None and now != self._loaded_signature

    def load(self) -> Model:
        """Load the current model. A file that cannot be loaded is not tried again until it changes.

        Raises:
            ModelError: if the file is unusable.
        """
        self._loaded_signature = self._signature()
        return self._load()

    def _signature(self) -> Signature | None:
        try:
            status = self._path.stat()
        except OSError:  # the file is being replaced or was deleted; the model in memory remains in use
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
