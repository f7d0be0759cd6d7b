"""The container at work, event by event on a clock of its own: what a deployment would serve, without starting it.

    clients ──► engine ──► pool: input_fn ──► replica in turn with room: stage ──► stage ──► pool: output_fn, urgent ──► clients

Each request is a process that takes what it needs and holds it as long as was measured: a core for its CPU time, a pool worker,
a place in a replica, the replica's interpreter, and by way of the stages' batches their devices. The rules are the engine's:
turns over replicas with room, a batch of what waits when its stage is ready, two batches ahead at most, one stage at a time on
a device that serves one. A closed loop of clients gives throughput, latency and how busy everything was; times are the
measured medians, so the same deployment always gives the same figures.

Left out: the front end beyond its CPU time, caches that go cold, memory bandwidth, and how a GPU divides itself among
processes, which are taken to have it in turn.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from multigpu_inference.planner.clock import Clock, Process, Queue, Resource
from multigpu_inference.planner.deployment import Deployment
from multigpu_inference.planner.profile import Cost, FunctionProfile, Profile, ReplicaProfile
from multigpu_inference.planner.simulated_cores import SimulatedCores
from multigpu_inference.planner.simulated_replica import SimulatedReplica, SimulatedStage

CPU = "the CPU"
# What a worker that runs one task at a time holds: that one, and one that waits in it.
_TASKS_IN_WORKER = 2
# Requests that are measured: for each client, and at least. Of a single client one is like the other.
_ROUNDS, _FEWEST, _FEWEST_ALONE = 8, 500, 20
# Between the first requests of two clients: they are not to march in step.
_APART_MS = 0.37


@dataclass(frozen=True)
class Outcome:
    """What a simulation gave.

    Attributes:
        requests_per_second: Served.
        latency_ms: Of a request, on average.
        utilisation: The busy share of everything that can be a bottleneck, by its name in words.
        device_stages: Of each device the busy share by stage number.
        batch_sizes: Of each stage the mean.
    """

    requests_per_second: float
    latency_ms: float
    utilisation: dict[str, float]
    device_stages: dict[str, dict[int, float]] = field(default_factory=dict)
    batch_sizes: tuple[float, ...] = ()


def simulate(deployment: Deployment, profile: Profile, replica: ReplicaProfile, cores: int, clients: int) -> Outcome:
    """Run a closed loop.

    Args:
        deployment: What is deployed.
        profile: What was measured.
        replica: Of that, the replica on this deployment's kinds of devices.
        cores: CPU cores.
        clients: Requests in flight.
    """
    return _Container(deployment, profile, replica, cores).run(clients)


class _Container:
    """Everything that requests share."""

    def __init__(self, deployment: Deployment, profile: Profile, replica: ReplicaProfile, cores: int) -> None:
        self._clock = clock = Clock()
        self._profile, self._replica = profile, replica
        self._pooled = [function for function in (profile.input, profile.output) if function is not None and function.in_pool]
        self._cores, self._engine = SimulatedCores(clock, cores), Resource(clock)
        self._pool = Resource(clock, deployment.capacity.pool_workers)
        self._devices = {name: Resource(clock) for devices in deployment.devices for name in devices}
        room = deployment.capacity.in_flight_per_replica if replica.pipelined else _TASKS_IN_WORKER
        self._replicas = [self._make_replica(devices, room, deployment.max_batch_size) for devices in deployment.devices]
        self._next, self._full = 0, Queue()
        self._latencies_ms: list[float] = []
        self._hops = 2 + len(self._pooled)  # to the replica and back, and to the pool and back
        self._hop_ms = max(0.0, profile.overhead.hand_over_ms - self._overhead_cpu_ms()) / self._hops
        self._beside = self._beside_the_stages()

    def run(self, clients: int) -> Outcome:
        for number in range(clients):
            self._clock.start(self._client(), after_ms=_APART_MS * number)
        self._until(2 * clients)
        self._forget()
        begun, before = self._clock.now, len(self._latencies_ms)
        self._until(before + max(_FEWEST if clients > 1 else _FEWEST_ALONE, _ROUNDS * clients))
        passed_ms = self._clock.now - begun
        latencies = self._latencies_ms[before:]
        return Outcome(
            len(latencies) / passed_ms * 1e3,
            sum(latencies) / len(latencies),
            self._utilisation(),
            self._by_stage(passed_ms),
            tuple(self._mean_batch(number) for number in range(len(self._replica.stages))),
        )

    def _until(self, answered: int) -> None:
        while len(self._latencies_ms) < answered and self._clock.step():
            pass

    def _make_replica(self, devices: tuple[str, ...], room: int, max_batch_size: int) -> SimulatedReplica:
        stages = [
            SimulatedStage(profile, number, max(1, min(profile.max_batch_size, max_batch_size)), device)
            for number, (profile, device) in enumerate(zip(self._replica.stages, devices, strict=True), 1)
        ]
        batch_cpu_ms = self._profile.overhead.batch_cpu_ms
        pipelined = self._replica.pipelined
        return SimulatedReplica(self._clock, self._cores, self._devices, stages, room, batch_cpu_ms, pipelined=pipelined)

    def _client(self) -> Process:
        while True:
            began = self._clock.now
            yield from self._cores.compute(self._profile.overhead.client_cpu_ms)
            yield from self._request()
            self._latencies_ms.append(self._clock.now - began)

    def _request(self) -> Process:
        """A request's way through the container."""
        before, after = self._profile.input, self._profile.output
        yield from self._manage()
        if before is not None and before.in_pool:
            yield from self._in_pool(before, urgent=False)
            yield from self._manage()
        while (replica := self._with_room()) is None:
            yield self._full
        replica.in_flight += 1
        yield from replica.serve(self._beside)
        replica.in_flight -= 1
        self._clock.wake(self._full)
        yield from self._manage()
        if after is not None and after.in_pool:
            yield from self._in_pool(after, urgent=True)
            yield from self._manage()

    def _manage(self) -> Process:
        """The engine's part of a hop."""
        yield self._hop_ms
        yield from self._engine.take()
        yield from self._cores.compute(self._profile.overhead.engine_cpu_ms / self._hops)
        self._engine.give()

    def _in_pool(self, function: FunctionProfile, *, urgent: bool) -> Process:
        yield from self._pool.take(urgent=urgent)
        yield from self._cores.compute(self._profile.overhead.pool_cpu_ms)
        yield from self._cores.work(function.cost)
        self._pool.give()

    def _with_room(self) -> SimulatedReplica | None:
        """The next replica in turn that has room."""
        for step in range(len(self._replicas)):
            place = (self._next + step) % len(self._replicas)
            if self._replicas[place].in_flight < self._replicas[place].room:
                self._next = (place + 1) % len(self._replicas)
                return self._replicas[place]
        return None

    def _overhead_cpu_ms(self) -> float:
        """The part of the container's own share that is CPU time, of a request that is alone."""
        overhead = self._profile.overhead
        pooled_ms = len(self._pooled) * overhead.pool_cpu_ms
        batches_ms = len(self._replica.stages) * overhead.batch_cpu_ms if self._replica.pipelined else 0.0
        return overhead.client_cpu_ms + overhead.engine_cpu_ms + overhead.replica_cpu_ms + pooled_ms + batches_ms

    def _beside_the_stages(self) -> Cost:
        """What a replica's process takes for a request, its stages aside."""
        functions = (self._profile.input, self._profile.output)
        costs = [function.cost for function in functions if function is not None and not function.in_pool]
        costs += [self._replica.around, Cost(*(self._profile.overhead.replica_cpu_ms,) * 2)]
        return Cost(sum(cost.wall_ms for cost in costs), sum(cost.cpu_ms for cost in costs))

    def _forget(self) -> None:
        """Begin to count anew: what came before filled the queues."""
        for resource in (self._cores, self._engine, self._pool, *self._devices.values()):
            resource.forget()
        for replica in self._replicas:
            replica.interpreter.forget()
            replica.stage_ms.clear()
            for stage in replica.stages:
                stage.batches.clear()

    def _utilisation(self) -> dict[str, float]:
        found = {CPU: self._cores.utilisation(), "the engine": self._engine.utilisation()}
        if self._pooled:
            found["the pool"] = self._pool.utilisation()
        if any(stage.exclusive for stage in self._replica.stages):
            found |= {f"device {name}": device.utilisation() for name, device in self._devices.items()}
        found |= {f"the process of replica {i}": r.interpreter.utilisation() for i, r in enumerate(self._replicas)}
        return found

    def _by_stage(self, passed_ms: float) -> dict[str, dict[int, float]]:
        busy_ms: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        for replica in self._replicas:
            for (device, stage), held_ms in replica.stage_ms.items():
                busy_ms[device][stage] += held_ms / passed_ms
        return {device: dict(sorted(stages.items())) for device, stages in busy_ms.items()}

    def _mean_batch(self, number: int) -> float:
        sizes = [size for replica in self._replicas for size in replica.stages[number].batches]
        return sum(sizes) / len(sizes) if sizes else 0.0
