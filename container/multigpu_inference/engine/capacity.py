"""How many of everything: a pure function of the settings, the devices and the cores.

Runs in the engine, at the start. These numbers bound every queue of the container.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from multigpu_inference.config import MAX_FRONT_END_WORKERS, MMS, EngineSettings, FrontEndSettings
from multigpu_inference.engine.placement import is_list, parse_placement

# A stage computes one batch while the next one forms, so that no device waits for the engine.
_BATCHES_PER_STAGE = 2
# What a stage takes at a time where nothing is said: a GPU's cores need several pictures, a CPU's are busy with one.
DEFAULT_BATCH_SIZE = {"cuda": 8, "cpu": 1}
# Front-end workers beyond what the engine takes, so that a refusal comes from the engine, with its reason.
_REFUSING_WORKERS = 4
# Threads that mostly wait for somebody else's server.
_MOST_FETCHING = 128
# Of front-end workers that hold one request each, how many requests may be fetched at a time; as many again may wait for that.
_FETCHING_SHARE = 4


@dataclass(frozen=True, slots=True)
class Capacity:
    """Counts and bounds.

    Attributes:
        num_replicas: Replica workers.
        threads_per_stage: CPU threads that a stage computes one batch with; the stages of a replica, and what each works on at
            a time, share its part of the cores.
        pool_workers: Processes of the pool that may work at a time.
        in_flight_per_replica: Requests that one replica worker holds.
        admitted: Requests that are between admission and answer, at most.
        fetching: Of those, how many may be fetched at a time, and how many more may wait for that: however slow a source is,
            the rest is for who needs none.
        max_queue_size: Requests that wait to be admitted, at most; one more is refused.
        front_end_workers: Front-end workers that are of use.
    """

    num_replicas: int
    threads_per_stage: int
    pool_workers: int
    in_flight_per_replica: int
    admitted: int
    fetching: int
    max_queue_size: int
    front_end_workers: int


def plan_capacity(
    settings: EngineSettings, num_gpus: int, cores: int, stages: int = 1, front_end: FrontEndSettings | None = None
) -> Capacity:
    """Fill in the defaults.

    Args:
        settings: What the user asked for.
        num_gpus: Visible GPUs; 0 on a machine without.
        cores: CPU cores that this container may use.
        stages: Stages of a replica.
        front_end: Whose workers hold a request each, where that is multi-model-server.
    """
    replicas = settings.num_replicas or _default_replicas(settings.placement, num_gpus)
    # A request is with one worker at a time, so more workers than requests in flight would never work.
    pool = settings.preprocess_workers or min(MAX_FRONT_END_WORKERS, max(2, cores - replicas))
    batch = settings.max_batch_size or DEFAULT_BATCH_SIZE["cuda" if num_gpus else "cpu"]
    streams = settings.streams_per_stage
    in_flight = _BATCHES_PER_STAGE * stages * batch * streams
    admitted = in_flight * replicas + 2 * pool
    queue = admitted if settings.max_queue_size is None else settings.max_queue_size
    front_end_workers = min(MAX_FRONT_END_WORKERS, admitted + queue + _REFUSING_WORKERS)
    fetching = min(_MOST_FETCHING, admitted // 2)
    if front_end is not None and front_end.kind == MMS:
        fetching = min(fetching, (front_end.workers or front_end_workers) // _FETCHING_SHARE)
    return Capacity(
        num_replicas=replicas,
        threads_per_stage=settings.stage_threads or max(1, cores // (replicas * stages * streams)),
        pool_workers=pool,
        in_flight_per_replica=in_flight,
        admitted=admitted,
        fetching=max(1, fetching),
        max_queue_size=queue,
        front_end_workers=front_end_workers,
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
