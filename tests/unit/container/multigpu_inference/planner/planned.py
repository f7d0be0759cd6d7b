"""What several tests of the planner share: machines, profiles and deployments of round numbers."""

from __future__ import annotations

from multigpu_inference.config import Settings
from multigpu_inference.planner.deployment import Candidate, Deployment, deploy
from multigpu_inference.planner.machine import Machine
from multigpu_inference.planner.profile import BatchCost, Cost, FunctionProfile, Overhead, Profile, ReplicaProfile, StageProfile

GIB = 1 << 30
NO_OVERHEAD = Overhead(0.0, 0.0, 0.0, 0.0, 0.0)
IN_POOL = FunctionProfile(Cost(1.0))


def gpus(count: int, cores: int = 16) -> Machine:
    return Machine(count, count, cores, 64 * GIB, count, cores)


def simulated_devices(count: int, cores: int = 16) -> Machine:
    """Devices of the CPU that serve one stage at a time."""
    return Machine(0, count, cores, 64 * GIB, count, cores)


def stage(*milliseconds: float, device: str = "cuda:0", exclusive: bool = True, cpu_ms: float = 0.0) -> StageProfile:
    """A stage that takes so long for batches of 1, 2, 4 …, and takes no larger ones."""
    batches = {1 << n: BatchCost(Cost(wall, cpu_ms)) for n, wall in enumerate(milliseconds)}
    return StageProfile("Stage", device, max(batches), exclusive, batches)


def chain(*stages: StageProfile, overhead: Overhead = NO_OVERHEAD, function: FunctionProfile = IN_POOL) -> Profile:
    """A model made of stages."""
    kinds = tuple(each.device.partition(":")[0] for each in stages)
    return Profile(function, function, {(kinds, 1): ReplicaProfile(stages, True, 1)}, overhead=overhead)


def plain(whole: StageProfile, function: FunctionProfile = IN_POOL) -> Profile:
    """A model without stages."""
    kind = whole.device.partition(":")[0]
    return Profile(function, function, {((kind,), 1): ReplicaProfile((whole,), False, 1)}, overhead=NO_OVERHEAD)


def deployed(profile: Profile, machine: Machine, candidate: Candidate, **environ: str) -> Deployment:
    stages = len(next(iter(profile.replicas))[0])
    return deploy(candidate, Settings.from_env(environ), machine, stages)
