"""Which settings are worth looking at: a pure function of the machine and of what was measured.

Placements: `ring`; `same`; a split, which gives each stage devices of its own, the slower one more of them; and where a stage
was also measured on the CPU, that one there and the others on the GPUs. For each one replica for a device, and more of them;
batch sizes up to what the stages take; the default number of pool workers, and as many as the devices could keep busy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from multigpu_inference.config import MAX_FRONT_END_WORKERS, Settings
from multigpu_inference.engine.capacity import DEFAULT_BATCH_SIZE
from multigpu_inference.errors import SettingsError
from multigpu_inference.planner.deployment import Candidate, Deployment, deploy
from multigpu_inference.planner.machine import Machine, kind
from multigpu_inference.planner.profile import Profile, ReplicaProfile, StageProfile

# How many ways of dividing the devices among the stages are looked at, the best balanced first.
_SPLITS = 2
# Pool workers beyond those that are busy on average, so that none is waited for.
_SPARE_WORKERS = 1.3
_FEWEST_WORKERS = 2


def enumerate_deployments(profile: Profile, settings: Settings, machine: Machine) -> list[Deployment]:
    """Everything that is looked at, each once; the engine's defaults first."""
    stages = len(next(iter(profile.replicas))[0])
    found: dict[object, Deployment] = {}
    for candidate in [Candidate(), *_candidates(profile, settings, machine, stages)]:
        try:
            deployment = deploy(candidate, settings, machine, stages)
        except SettingsError:
            continue
        if replica_of(deployment, profile) is not None:
            found.setdefault((deployment.devices, deployment.max_batch_size, deployment.capacity), deployment)
    return list(found.values())


def replica_of(deployment: Deployment, profile: Profile) -> ReplicaProfile | None:
    """What was measured on this deployment's kinds of devices; None where nothing was."""
    return profile.replica(tuple(map(kind, deployment.placement[0])), deployment.capacity.threads_per_stage)


def device_bound(deployment: Deployment, replica: ReplicaProfile) -> float:
    """Requests per second that the devices allow at best, all replicas getting as many: infinite where none is exclusive."""
    busy_ms: dict[str, float] = {}
    for devices in deployment.devices:
        for stage, device in zip(replica.stages, devices, strict=True):
            if stage.exclusive:
                spent = best_item_ms(stage, deployment.max_batch_size) * stage.items_per_request
                busy_ms[device] = busy_ms.get(device, 0.0) + spent / len(deployment.devices)
    return 1e3 / max(busy_ms.values()) if busy_ms else math.inf


def best_item_ms(stage: StageProfile, max_batch_size: int) -> float:
    """The least that an item takes on its device, in a batch of whatever size is allowed."""
    limit = min(stage.max_batch_size, max_batch_size)
    return min(stage.cost(size).wall_ms / size for size in {*(n for n in stage.batches if n <= limit), limit})


def core_bound(profile: Profile, replica: ReplicaProfile, cores: int, max_batch_size: int) -> float:
    """Requests per second that the cores allow at best."""
    overhead = profile.overhead
    functions = [function for function in (profile.input, profile.output) if function is not None]
    cpu_ms = overhead.client_cpu_ms + overhead.engine_cpu_ms + overhead.replica_cpu_ms + replica.around.cpu_ms
    cpu_ms += sum(function.cost.cpu_ms + overhead.pool_cpu_ms * function.in_pool for function in functions)
    for stage in replica.stages:
        limit = min(stage.max_batch_size, max_batch_size)
        cpu_ms += (stage.cost(limit).cpu_ms + overhead.batch_cpu_ms) / limit * stage.items_per_request
    return 1e3 * cores / cpu_ms if cpu_ms else math.inf


def pool_workers_for(rate: float, profile: Profile, cores: int) -> int | None:
    """Pool workers that serve so many requests per second; None where nothing runs in the pool."""
    costs = [function.cost for function in (profile.input, profile.output) if function is not None and function.in_pool]
    if not costs:
        return None
    wall_ms = sum(cost.wall_ms for cost in costs) + profile.overhead.pool_cpu_ms * len(costs)
    cpu_ms = sum(cost.cpu_ms for cost in costs) + profile.overhead.pool_cpu_ms * len(costs)
    wanted = math.ceil(min(_SPARE_WORKERS * rate * wall_ms / 1e3, MAX_FRONT_END_WORKERS))
    useful = math.ceil(_SPARE_WORKERS * cores * max(1.0, wall_ms / max(cpu_ms, 1e-6)))  # more would wait for a core
    return max(_FEWEST_WORKERS, min(wanted, useful, MAX_FRONT_END_WORKERS))


def _candidates(profile: Profile, settings: Settings, machine: Machine, stages: int) -> Iterator[Candidate]:
    for placement, replicas in _placements(profile, machine, stages):
        for batch in _batch_sizes(profile, machine):
            plain = Candidate(placement, replicas, batch)
            yield plain
            try:
                deployment = deploy(plain, settings, machine, stages)
            except SettingsError:
                continue
            replica = replica_of(deployment, profile)
            if replica is None:
                continue
            cores = core_bound(profile, replica, machine.cores, deployment.max_batch_size)
            workers = pool_workers_for(min(cores, device_bound(deployment, replica)), profile, machine.cores)
            if workers is not None:
                yield Candidate(placement, replicas, batch, workers)


def _placements(profile: Profile, machine: Machine, stages: int) -> Iterator[tuple[str, int | None]]:
    """Placements with numbers of replicas; None where the default is meant."""
    measured = next(iter(profile.replicas.values()))
    exclusive = any(stage.exclusive for stage in measured.stages)
    if not machine.gpus and not exclusive:  # the cores are the only device
        for count in sorted({1 << n for n in range(machine.cores.bit_length())} | {machine.cores}):
            yield "ring", None if count == 1 else count
        return
    n = machine.devices
    for count in (n, 2 * n, 3 * n) if machine.gpus else (n, 2 * n):
        for placement in ("ring", "same") if stages > 1 and n > 1 else ("ring",):
            yield placement, None if count == max(1, machine.gpus) else count
    for placement in (*_splits(measured, machine, stages), *_with_the_cpu(profile, machine)):
        yield placement, None
        yield placement, 2 * (placement.count(";") + 1)


def _splits(replica: ReplicaProfile, machine: Machine, stages: int) -> list[str]:
    """Lists that give each stage devices of its own, those first whose busiest device has the least to do."""
    if stages < 2 or stages > machine.devices:
        return []
    times = [best_item_ms(stage, stage.max_batch_size) * stage.items_per_request for stage in replica.stages]
    ways = [way for way in itertools.product(range(1, machine.devices), repeat=stages) if sum(way) == machine.devices]
    ways.sort(key=lambda way: max(time / count for time, count in zip(times, way, strict=True)))
    return [split_placement(way, "cuda" if machine.gpus else "cpu") for way in ways[:_SPLITS]]


def split_placement(counts: tuple[int, ...], name: str) -> str:
    """A list of replicas that gives stage s its own `counts[s]` devices, evenly, however many replicas that takes.

    With 1 and 3: `cuda:0,cuda:1;cuda:0,cuda:2;cuda:0,cuda:3`.
    """
    begins = [sum(counts[:stage]) for stage in range(len(counts))]
    replicas = min(math.lcm(*counts), 2 * sum(counts))
    entries = [
        ",".join(f"{name}:{begin + replica % count}" for begin, count in zip(begins, counts, strict=True))
        for replica in range(replicas)
    ]
    return ";".join(entries)


def _with_the_cpu(profile: Profile, machine: Machine) -> list[str]:
    """Lists for every measured mixture of GPUs and CPU: the stages on GPUs go round the ring."""
    found = []
    for kinds in dict.fromkeys(kinds for kinds, _ in profile.replicas):
        if set(kinds) == {"cpu", "cuda"}:
            replicas = (
                ",".join("cpu" if each == "cpu" else f"cuda:{(i + stage) % machine.gpus}" for stage, each in enumerate(kinds))
                for i in range(machine.gpus)
            )
            found.append(";".join(replicas))
    return found


def _batch_sizes(profile: Profile, machine: Machine) -> list[int | None]:
    """Batch sizes up to what a stage takes, the default first."""
    default = DEFAULT_BATCH_SIZE["cuda" if machine.gpus else "cpu"]
    largest = max(min(stage.max_batch_size, 2 * stage.largest_batch) for stage in next(iter(profile.replicas.values())).stages)
    sizes = {1 << n for n in range(largest.bit_length())} | {largest}
    return [None, *sorted(sizes - {default})]
