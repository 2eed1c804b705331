"""Third-party packages, installed on the path as by pip."""

from __future__ import annotations

from pathlib import Path


def install_package(site: Path, module: str, code: str, entry_points: str) -> Path:
    """Write a package with a single module into a folder of `sys.path` and return the file of its entry points."""
    site.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(code)
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    return info / "entry_points.txt"
