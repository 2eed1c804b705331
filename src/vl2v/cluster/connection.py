"""Join a Ray cluster, or start one on this machine."""

from __future__ import annotations

import math
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vl2v.errors import ConfigError, MissingExtraError
from vl2v.progress import Progress, warn

LOCAL = "local"
STORE_BYTES = 100_000_000  # object store of a local cluster; our objects are settings of a few kilobytes
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a worker hides cards by itself
    "RAY_enable_metrics_collection": "0",
}


@dataclass(frozen=True)
class Share:
    """Resources of one job or worker.

    Attributes:
        cpus: cores; also the number of torch threads, at least one.
        gpus: GPUs; with 0.5, two jobs share a GPU.
    """

    cpus: float = 1.0
    gpus: float = 0.0

    def fits(self, resources: Mapping[str, float]) -> int:
        """Return how often it fits into the resources of a machine."""
        counts = [resources.get("CPU", 0.0) / self.cpus]
        if self.gpus:
            counts.append(resources.get("GPU", 0.0) / self.gpus)
        return math.floor(min(counts) + 1e-9)

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"


@dataclass(frozen=True)
class ClusterUse:
    """A cluster and the resources of a worker.

    Attributes:
        address: ``local`` for processes on this machine, or the address of a running cluster; see `connected`.
        share: resources of a worker that runs a teacher, or a job of a grid.
        unit: worker or job, in messages and names of options.
    """

    address: str
    share: Share = field(default_factory=Share)
    unit: str = "worker"

    def __post_init__(self) -> None:
        """Check the resources."""
        if self.share.cpus <= 0 or self.share.gpus < 0:
            raise ConfigError(
                f"The resources per {self.unit} are not valid.",
                expected="CPUs above 0, GPUs at least 0",
                found=str(self.share),
                next_step=f"correct --cpus-per-{self.unit} and --gpus-per-{self.unit}",
            )


def cluster_of(address: str | None, cpus: float = 1.0, gpus: float = 0.0) -> ClusterUse | None:
    """Return the cluster at an address, for workers with some CPUs and GPUs each; None without an address.

    Raises:
        MissingExtraError: if Ray is not installed.
    """
    if address is None:
        return None
    need_ray()
    return ClusterUse(address, Share(cpus, gpus))


def need_ray() -> None:
    """Check that Ray is installed.

    Raises:
        MissingExtraError: if it is not.
    """
    if find_spec("ray") is None:
        raise MissingExtraError("--ray", "ray", "ray")


@contextmanager
def connected(address: str, local_cpus: int | None = None) -> Iterator[Any]:
    """Yield the module `ray`, connected to a cluster. An existing connection is used and stays open.

    Args:
        local_cpus: cores of a local cluster; None uses all.

    Raises:
        MissingExtraError: if Ray is not installed.
        ConfigError: if there is no cluster at the address.
    """
    with ExitStack() as stack:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        need_ray()
        import ray

        if not ray.is_initialized():
            settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
            if address == LOCAL:
                settings |= {"num_cpus": local_cpus, "include_dashboard": False, "object_store_memory": STORE_BYTES}
            try:
                _ensure_reachable(address)
                ray.init(address, **settings)
            except (OSError, RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"There is no Ray cluster at {address}.",
                    expected="local, auto, host:port, or ray://host:10001",
                    found=str(error).strip().splitlines()[0],
                    next_step="start one, or correct --ray; if it has a token, set RAY_AUTH_MODE=token here too",
                ) from error
            stack.callback(ray.shutdown)
        yield ray


def _ensure_reachable(address: str) -> None:
    """Check that a server listens at the address; Ray itself would retry for minutes."""
    if address == "auto":  # what Ray uses then, also if that cluster is gone
        address_file = Path(tempfile.gettempdir(), "ray", "ray_current_cluster")
        address = os.environ.get("RAY_ADDRESS") or (address_file.read_text() if address_file.is_file() else "")
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def check_worker_fits(ray: Any, use: ClusterUse, progress: Progress) -> None:
    """Reject workers that are too large for a local cluster; for a remote cluster, which may grow, only warn."""
    share, what, nodes = use.share, use.unit, [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not share.gpus and (cards := sum(n.get("GPU", 0) for n in nodes)):
        warn(progress, f"no {what} uses the cluster's GPUs ({cards:g}); --gpus-per-{what} 1 gives one to each {what}")
    if any(share.fits(n) for n in nodes):
        return
    found = ", ".join(str(Share(n.get("CPU", 0), n.get("GPU", 0))) for n in nodes) or "no machine"
    if use.address == LOCAL:
        step = f"correct --cpus-per-{what} and --gpus-per-{what}"
        raise ConfigError(
            f"This machine is too small for one {what}.", expected=str(share), found=found, next_step=step
        )
    warn(progress, f"no machine of the cluster has {share} ({found}); the {what}s wait for one to join")


def free_worker_slots(ray: Any, share: Share) -> int:
    """Return how many jobs or workers the machines of a cluster have room for, at least 1, whoever uses them now."""
    return max(1, sum(share.fits(node["Resources"]) for node in ray.nodes() if node["Alive"]))
