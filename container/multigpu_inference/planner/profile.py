"""What was measured of a model: the planner's facts, from which everything else is worked out.

Made by `profiling` from what the profilers, which run as workers do, have told; read by `simulation` and `report`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from multigpu_inference.messages import Sent


@dataclass(frozen=True, slots=True)
class Cost(Sent):
    """What one call takes, alone on the machine.

    Attributes:
        wall_ms: Milliseconds on the clock. A stage's device, a function's worker, is taken for so long.
        cpu_ms: Milliseconds of CPU time, over all threads. What sleeps or waits for a GPU takes less than `wall_ms`, what
            computes on several threads takes more.
    """

    wall_ms: float = 0.0
    cpu_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class BatchCost(Sent):
    """What a stage takes for a batch.

    Attributes:
        cost: Time of the whole batch.
        peak_bytes: Memory of its device beyond what the loaded model has: peak, while it runs.
    """

    cost: Cost
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class StageProfile(Sent):
    """One stage on one kind of device.

    Attributes:
        name: Its class, or the function that stands for it.
        device: Where it was measured, such as `cuda:0`.
        max_batch_size: What the script allows at most.
        exclusive: Whether its device serves one stage at a time: a GPU, or a device with a `room` of its own.
        batches: Its cost by batch size.
        model_bytes: Memory that its loaded model has.
        items_per_request: How often a request passes it.
    """

    name: str
    device: str
    max_batch_size: int
    exclusive: bool
    batches: Mapping[int, BatchCost]
    model_bytes: int = 0
    items_per_request: int = 1

    def cost(self, batch: int) -> Cost:
        """The cost of a batch of any size: on a line between the sizes that were measured, and beyond the last."""
        return interpolate({size: each.cost for size, each in self.batches.items()}, batch)

    @property
    def largest_batch(self) -> int:
        """The largest that was measured: the next one is not allowed, or did not fit."""
        return max(self.batches)


@dataclass(frozen=True, slots=True)
class ReplicaProfile(Sent):
    """One replica on certain kinds of devices, with certain CPU threads for each stage.

    Attributes:
        stages: In order. A model without stages counts as one, with batches of one.
        pipelined: Whether it is made of stages, so that its worker runs several requests at a time.
        threads: CPU threads that a stage computed with.
        around: `predict_fn` without its stages.
        process_bytes: Resident memory of its process, with its model where that lies on the CPU.
        context_bytes: Memory of a GPU that the process takes before any model is loaded.
        device_bytes: Memory of that GPU; 0 on the CPU.
        load_s: How long loading took.
    """

    stages: tuple[StageProfile, ...]
    pipelined: bool
    threads: int
    around: Cost = Cost()
    process_bytes: int = 0
    context_bytes: int = 0
    device_bytes: int = 0
    load_s: float = 0.0


@dataclass(frozen=True, slots=True)
class FunctionProfile(Sent):
    """`input_fn` or `output_fn`.

    Attributes:
        cost: Of one call, where it runs.
        in_pool: Whether it runs in the pool.
        because: Why it does not.
        process_bytes: Resident memory of a pool worker after it.
        bytes_out: Size of what it gives, pickled, or of the answer.
    """

    cost: Cost = Cost()
    in_pool: bool = True
    because: str | None = None
    process_bytes: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class Overhead:
    """What the container itself takes for a request, found by serving one with the engine: everything that no function does.

    Attributes:
        hand_over_ms: Of a request that is alone: its latency beyond its functions and stages.
        client_cpu_ms: CPU time of who sends it; the front end's share on an endpoint.
        engine_cpu_ms: Of the engine, which is one process with one thread.
        pool_cpu_ms: Of a pool worker, by task, beyond the function.
        replica_cpu_ms: Of a replica worker, beyond `predict_fn`.
        batch_cpu_ms: Of a replica worker, for each batch of a stage: its thread wakes up, takes turns, hands on.
    """

    hand_over_ms: float = 1.5
    client_cpu_ms: float = 0.15
    engine_cpu_ms: float = 0.25
    pool_cpu_ms: float = 0.1
    replica_cpu_ms: float = 0.25
    batch_cpu_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything that was measured of a model.

    Attributes:
        input: `input_fn`; None where `transform_fn` does it all.
        output: `output_fn`; the same.
        replicas: By kind of device of each stage and CPU threads, such as `(("cuda", "cuda"), 4)`.
        prediction_bytes: Size of a pickled prediction.
        overhead: The container's own share.
    """

    input: FunctionProfile | None
    output: FunctionProfile | None
    replicas: Mapping[tuple[tuple[str, ...], int], ReplicaProfile]
    prediction_bytes: int = 0
    overhead: Overhead = field(default_factory=Overhead)

    def replica(self, kinds: tuple[str, ...], threads: int) -> ReplicaProfile | None:
        """The replica measured on such devices, with the count of threads that is nearest; None where there is none."""
        found = [(abs(each - threads), each) for kind, each in self.replicas if kind == kinds]
        return self.replicas[kinds, min(found)[1]] if found else None


def interpolate(costs: Mapping[int, Cost], batch: int) -> Cost:
    """The cost of a batch, on a line through those measured beside it."""
    if batch in costs:
        return costs[batch]
    sizes = sorted(costs)
    if len(sizes) == 1:  # nothing is known of larger ones: they may take as long as their items one by one
        return Cost(costs[sizes[0]].wall_ms * batch / sizes[0], costs[sizes[0]].cpu_ms * batch / sizes[0])
    low = max([size for size in sizes[:-1] if size < batch], default=sizes[0])
    high = sizes[sizes.index(low) + 1]
    share = (batch - low) / (high - low)
    a, b = costs[low], costs[high]
    return Cost(a.wall_ms + share * (b.wall_ms - a.wall_ms), a.cpu_ms + share * (b.cpu_ms - a.cpu_ms))
