"""Download and unpack the packages that contain the drawings, without installing them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tools.train_offline_vendor.sources import DEBIAN, NPM


def fetch(work: Path) -> tuple[Path, Path]:
    """Download the packages of npm and Debian that are missing in `work`.

    Returns:
        The folder ``node_modules``, and the folder with one unpacked folder for each Debian package.

    Raises:
        RuntimeError: if npm, apt-get or dpkg-deb fails; the message contains its output.
    """
    npm, deb = work / "npm", work / "deb"
    npm.mkdir(parents=True, exist_ok=True)
    deb.mkdir(parents=True, exist_ok=True)
    if not all((npm / "node_modules" / name).is_dir() for name in NPM):
        _run(["npm", "install", "--no-save", "--ignore-scripts", *NPM], npm)
    for name in DEBIAN:
        if (deb / name).is_dir():
            continue
        _run(["apt-get", "download", name], deb)
        (archive,) = deb.glob(f"{name}_*.deb")
        _run(["dpkg-deb", "-x", str(archive), name], deb)
        archive.unlink()
    return npm / "node_modules", deb


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:2])} failed: {done.stderr.strip()[-500:]}")
