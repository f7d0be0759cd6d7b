"""How many of everything: a pure function of the settings, the devices and the cores.

Runs in the engine, at the start. These numbers bound every queue of the container.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from multigpu_inference.config import MAX_FRONT_END_WORKERS, EngineSettings
from multigpu_inference.engine.placement import is_list, parse_placement

# A replica runs one request; the next one waits in its socket, so that the device never waits for the engine.
IN_FLIGHT_PER_REPLICA = 2
# Front-end workers beyond what the engine takes, so that a refusal comes from the engine, with its reason.
_REFUSING_WORKERS = 4


@dataclass(frozen=True, slots=True)
class Capacity:
    """Counts and bounds.

    Attributes:
        num_replicas: Replica workers.
        threads_per_replica: CPU threads that a replica worker computes with.
        pool_workers: Processes of the pool that may work at a time.
        in_flight_per_replica: Requests that one replica worker holds.
        admitted: Requests that are between admission and answer, at most.
        max_queue_size: Requests that wait to be admitted, at most; one more is refused.
        front_end_workers: Front-end workers that are of use.
    """

    num_replicas: int
    threads_per_replica: int
    pool_workers: int
    in_flight_per_replica: int
    admitted: int
    max_queue_size: int
    front_end_workers: int


def plan_capacity(settings: EngineSettings, num_gpus: int, cores: int) -> Capacity:
    """Fill in the defaults.

    Args:
        settings: What the user asked for.
        num_gpus: Visible GPUs; 0 on a machine without.
        cores: CPU cores that this container may use.
    """
    replicas = settings.num_replicas or _default_replicas(settings.placement, num_gpus)
    # A request is with one worker at a time, so more workers than requests in flight would never work.
    pool = settings.preprocess_workers or min(MAX_FRONT_END_WORKERS, max(2, cores - replicas))
    admitted = IN_FLIGHT_PER_REPLICA * replicas + 2 * pool
    queue = admitted if settings.max_queue_size is None else settings.max_queue_size
    return Capacity(
        num_replicas=replicas,
        threads_per_replica=settings.stage_threads or max(1, cores // replicas),
        pool_workers=pool,
        in_flight_per_replica=IN_FLIGHT_PER_REPLICA,
        admitted=admitted,
        max_queue_size=queue,
        front_end_workers=min(MAX_FRONT_END_WORKERS, admitted + queue + _REFUSING_WORKERS),
    )


def _default_replicas(placement: str, num_gpus: int) -> int:
    if is_list(placement):
        return len(parse_placement(placement))
    return max(1, num_gpus)


def available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPU cores that this process may use: its affinity, and the container's quota where it has one."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # no second-version control group: no quota to read
    return cores
