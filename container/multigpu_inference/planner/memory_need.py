"""How much memory a deployment needs, by device, from what one replica and one pool worker were seen to take."""

from __future__ import annotations

from collections import defaultdict

from multigpu_inference.planner.deployment import Deployment
from multigpu_inference.planner.machine import Machine
from multigpu_inference.planner.profile import Profile, ReplicaProfile, StageProfile

MAIN = "main memory"
# Of a GPU: allocators leave gaps.
_USABLE = 0.95


def memory_need(deployment: Deployment, profile: Profile, replica: ReplicaProfile) -> dict[str, int]:
    """Bytes by device, and in main memory under `MAIN`.

    Processes are counted as if they shared nothing, so it is rather too much.
    """
    need: dict[str, int] = defaultdict(int)
    for devices in deployment.devices:
        need[MAIN] += replica.process_bytes
        for gpu in {device for device in devices if device.startswith("cuda")}:
            need[gpu] += replica.context_bytes
        for stage, device in zip(replica.stages, devices, strict=True):
            peak = _peak_bytes(stage, min(stage.max_batch_size, deployment.max_batch_size))
            need[device if device.startswith("cuda") else MAIN] += stage.model_bytes + peak
    pooled = [function for function in (profile.input, profile.output) if function is not None and function.in_pool]
    if pooled:
        need[MAIN] += (deployment.capacity.pool_workers + 1) * max(function.process_bytes for function in pooled)
    return dict(need)


def too_large(need: dict[str, int], machine: Machine, replica: ReplicaProfile) -> str | None:
    """Which memory does not suffice, in words; None where all do."""
    for device, size in need.items():
        there = machine.memory_bytes if device == MAIN else int(_USABLE * replica.device_bytes)
        if size > there:
            return f"{device} would need {size / 2**30:.1f} GiB of {there / 2**30:.1f}"
    return None


def _peak_bytes(stage: StageProfile, batch: int) -> int:
    """Of a batch: as measured, or beyond the largest that was in proportion to it."""
    if batch in stage.batches:
        return stage.batches[batch].peak_bytes
    above = [size for size in stage.batches if size > batch]
    if above:
        return stage.batches[min(above)].peak_bytes
    largest = stage.largest_batch
    return stage.batches[largest].peak_bytes * batch // largest
