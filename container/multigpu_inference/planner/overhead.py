"""The container's own share of a request: what an engine took, less what the functions and stages were measured to take."""

from __future__ import annotations

import dataclasses

from multigpu_inference.planner.engine_run import Measured
from multigpu_inference.planner.profile import Cost, Overhead, Profile, ReplicaProfile, StageProfile

# A difference of two measured times is noise where it is below the first or, with functions that take hundreds of milliseconds,
# above the second.
_LEAST_MS, _MOST_CPU_MS, _MOST_MS = 0.05, 1.5, 15.0


def overhead_of(measured: Measured, profile: Profile, replica: ReplicaProfile, max_batch_size: int = 1) -> Overhead:
    """What remains.

    Args:
        measured: An engine that served the model.
        profile: Of the same model, whose own overhead is not looked at.
        replica: The replica that was served, of that profile.
        max_batch_size: Of the stages, which under load are taken to have had full batches.
    """
    pool = [function.cost for function in (profile.input, profile.output) if function is not None and function.in_pool]
    here = [function.cost for function in (profile.input, profile.output) if function is not None and not function.in_pool]
    here += [replica.around, *(_of_a_request(stage, min(stage.max_batch_size, max_batch_size)) for stage in replica.stages)]
    cpu = measured.cpu_ms
    return Overhead(
        hand_over_ms=_between(measured.lone_ms - sum(cost.wall_ms for cost in (*pool, *here)), _MOST_MS),
        client_cpu_ms=_between(cpu.get("client", 0.0), _MOST_CPU_MS),
        engine_cpu_ms=_between(cpu.get("engine", 0.0), _MOST_CPU_MS),
        pool_cpu_ms=_between((cpu.get("pool", 0.0) - sum(cost.cpu_ms for cost in pool)) / max(1, len(pool)), _MOST_CPU_MS),
        replica_cpu_ms=_between(cpu.get("replica", 0.0) - sum(cost.cpu_ms for cost in here), _MOST_CPU_MS),
    )


def _of_a_request(stage: StageProfile, batch: int) -> Cost:
    """The time of a request that is alone, and the CPU time of one among others."""
    alone, full = stage.cost(1), stage.cost(batch)
    return Cost(alone.wall_ms * stage.items_per_request, full.cpu_ms / batch * stage.items_per_request)


def _between(milliseconds: float, most: float) -> float:
    return min(most, max(_LEAST_MS, milliseconds))


def with_batches(single: Overhead, loaded: Overhead, stages: int, mean_batch: float) -> Overhead:
    """What the container adds under load, the replica's part divided into a request's and a batch's.

    With batches of one a request pays for a batch of each stage alone, under load it shares them.

    Args:
        single: With batches of one.
        loaded: Under load.
        stages: Of the model.
        mean_batch: Items that a batch had under load.
    """
    shared = stages * (1 - 1 / max(1.0, mean_batch))
    batch_ms = max(0.0, single.replica_cpu_ms - loaded.replica_cpu_ms) / shared if shared > 0 else 0.0
    batch_ms = min(batch_ms, loaded.replica_cpu_ms * mean_batch / stages)
    request_ms = max(_LEAST_MS, loaded.replica_cpu_ms - stages * batch_ms / max(1.0, mean_batch))
    return dataclasses.replace(loaded, hand_over_ms=single.hand_over_ms, replica_cpu_ms=request_ms, batch_cpu_ms=batch_ms)
