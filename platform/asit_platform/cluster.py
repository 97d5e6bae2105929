"""Ray: start or join it, and work out before a study whether its trials can be placed.

Ray waits for ever, without a word, for resources that no node has; so `preflight` does the
sum first and says it.
"""

import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
import ray.data
from ray._private.state import state

from asit_platform.errors import PlatformError

LOCAL = "local"
# Ray's own default is 30 % of the machine; on a shared one only what is free is ours to take.
OBJECT_STORE_SHARE = 0.3
MIN_OBJECT_STORE_BYTES = 100 * 2**20
START_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceSpec:
    """What one trial takes of the cluster.

    Attributes:
        num_workers: Processes that train one trial together; 1 trains inside the trial itself.
        cpus_per_worker: CPUs of each; may be a fraction.
        gpus_per_worker: GPUs of each; may be a fraction, so that trials share a GPU.
        max_concurrent_trials: Upper limit on trials at a time; None means as many as fit.
    """

    __pydantic_config__ = {"extra": "forbid"}

    num_workers: int = 1
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    max_concurrent_trials: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no cluster could give."""
        if self.num_workers < 1:
            raise ValueError(f"num_workers must be >= 1, but got {self.num_workers}")
        if self.cpus_per_worker <= 0:
            raise ValueError(f"cpus_per_worker must be > 0, but got {self.cpus_per_worker:g}")
        if self.gpus_per_worker < 0:
            raise ValueError(f"gpus_per_worker must be >= 0, but got {self.gpus_per_worker:g}")
        if self.max_concurrent_trials is not None and self.max_concurrent_trials < 1:
            raise ValueError(
                f"max_concurrent_trials must be >= 1 or null, but got {self.max_concurrent_trials}"
            )


@contextmanager
def start_ray(
    *,
    address: str | None = None,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    object_store_bytes: int | None = None,
    with_dashboard: bool = False,
) -> Iterator[None]:
    """Join the cluster at `address` or `RAY_ADDRESS`, or else start Ray on this machine, quietly.

    Ray that already runs in this process is used as it is and left running. The other
    arguments shape a Ray started here; a cluster has its own.

    Args:
        address: A cluster's address; "local" starts Ray here whatever `RAY_ADDRESS` says.
        num_cpus: CPUs that Ray may use; None means all of them.
        num_gpus: GPUs that Ray may use; None means all of them.
        object_store_bytes: Shared memory for data; None means 30 % of what is free.
        with_dashboard: Serve Ray's dashboard on 127.0.0.1. Trials of several workers need it:
            without it Ray never frees the placement group of a trial that was stopped early
            (https://github.com/ray-project/ray/pull/58515).

    Raises:
        PlatformError: If Ray does not start, or no cluster answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or LOCAL
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        _start_here(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            object_store_memory=object_store_bytes or _free_object_store_bytes(),
            include_dashboard=with_dashboard,
            **quiet,
        )
    else:
        _join(address, quiet)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
    finally:
        ray.shutdown()


def preflight(resources: ResourceSpec, *, data_cpus: float = 1.0) -> int:
    """Work out how many trials run at a time on the cluster that Ray is connected to.

    Args:
        resources: What one trial takes.
        data_cpus: CPUs that reading the data needs beside the trials; 0 where the data lie in
            memory already.

    Returns:
        Number of concurrent trials, at least 1.

    Raises:
        PlatformError: If not even one trial can be placed; the message shows the sum.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return count_placeable(
        resources, nodes, data_cpus=data_cpus, autoscaled=_autoscaled_resources()
    )


def count_placeable(
    resources: ResourceSpec,
    nodes: Sequence[Mapping[str, float]],
    *,
    data_cpus: float,
    autoscaled: Mapping[str, float] | None = None,
) -> int:
    """The arithmetic of `preflight`, on the resources of each node.

    Args:
        resources: What one trial takes.
        nodes: Resources of each node, in Ray's words ("CPU", "GPU").
        data_cpus: CPUs that reading the data needs beside the trials.
        autoscaled: What the whole cluster may grow to; None where it does not grow.
    """
    total = {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    if autoscaled is not None:
        total = {name: max(total[name], autoscaled.get(name, 0.0)) for name in total}
    _check_total(resources, total, data_cpus)
    if autoscaled is None:
        _check_largest_node(resources, nodes)
    fitting = [(total["CPU"] - data_cpus) / (resources.num_workers * resources.cpus_per_worker)]
    if resources.gpus_per_worker > 0:
        fitting.append(total["GPU"] / (resources.num_workers * resources.gpus_per_worker))
    if resources.max_concurrent_trials is not None:
        fitting.append(resources.max_concurrent_trials)
    # 0.3 / 0.1 is 2.9999999999999996: a thousandth of a trial is rounding.
    return max(1, int(min(fitting) + 1e-3))


def _check_total(resources: ResourceSpec, total: Mapping[str, float], data_cpus: float) -> None:
    workers, cpus, gpus = (
        resources.num_workers,
        resources.cpus_per_worker,
        resources.gpus_per_worker,
    )
    if workers * cpus + data_cpus > total["CPU"] + 1e-9:
        share = int((total["CPU"] - data_cpus) / workers * 10) / 10
        remedy = (
            f"try -S resources.cpus_per_worker={share:g}" if share > 0 else "use a larger machine"
        )
        raise PlatformError(
            f"resources: a trial takes {workers} x {cpus:g} CPU{_for_data(data_cpus)} = "
            f"{workers * cpus + data_cpus:g} CPU, but Ray has {total['CPU']:g}; {remedy}"
        )
    if workers * gpus > total["GPU"] + 1e-9:
        raise PlatformError(
            f"resources: a trial takes {workers} x {gpus:g} GPU = {workers * gpus:g} GPU, but Ray "
            f"has {total['GPU']:g}; -S resources.gpus_per_worker=0 trains on the CPU"
        )


def _for_data(data_cpus: float) -> str:
    return f" + {data_cpus:g} CPU to read data" if data_cpus else ""


def _check_largest_node(resources: ResourceSpec, nodes: Sequence[Mapping[str, float]]) -> None:
    for node in nodes:
        fits_cpu = node.get("CPU", 0.0) + 1e-9 >= resources.cpus_per_worker
        fits_gpu = node.get("GPU", 0.0) + 1e-9 >= resources.gpus_per_worker
        if fits_cpu and fits_gpu:
            return
    shapes = ", ".join(
        f"{node.get('CPU', 0):g} CPU and {node.get('GPU', 0):g} GPU" for node in nodes
    )
    raise PlatformError(
        f"resources: a worker takes {resources.cpus_per_worker:g} CPU and "
        f"{resources.gpus_per_worker:g} GPU on one node, but the nodes have {shapes}"
    )


def _start_here(**settings: Any) -> None:
    failure: Exception | None = None
    for _ in range(START_ATTEMPTS):
        try:
            ray.init(address=LOCAL, dashboard_host="127.0.0.1", **settings)
        except Exception as error:
            # Ray raises a plain Exception where its processes were not up within its 30 seconds.
            failure = error
            ray.shutdown()
        else:
            return
    reason = " ".join(str(failure).split())
    raise PlatformError(
        f"Ray does not start on this machine (is it busy, or short of memory?); it says: {reason}"
    ) from failure


def _join(address: str, quiet: Mapping[str, Any]) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if port.isdecimal():
            # ray.init keeps trying a dead address for many minutes.
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, **quiet)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise PlatformError(
            f"no Ray cluster answers at '{address}' ({reason}); start one with "
            "`ray up cluster.yaml`, or unset RAY_ADDRESS to run on this machine"
        ) from error
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise PlatformError(
            f"cannot join a Ray cluster at '{address}' ({reason}); set RAY_ADDRESS to host:port, "
            "ray://host:port or auto, or unset it to run on this machine"
        ) from error


def _free_object_store_bytes() -> int:
    free = psutil.virtual_memory().available
    shared_memory = Path("/dev/shm")
    if shared_memory.is_dir():
        free = min(free, shutil.disk_usage(shared_memory).free)
    return max(MIN_OBJECT_STORE_BYTES, int(free * OBJECT_STORE_SHARE))


def _autoscaled_resources() -> Mapping[str, float] | None:
    """What the cluster may grow to, or None if it does not grow.

    Ray has no public call for it; Ray Train asks the same private one.
    """
    return state.get_max_resources_from_cluster_config()
