"""A replica worker in a simulation: its stages with their queues, batches and devices, by the rules of `stage_runner`."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence

from multigpu_inference.planner.clock import Clock, Process, Queue, Resource
from multigpu_inference.planner.profile import Cost, StageProfile
from multigpu_inference.planner.simulated_cores import SimulatedCores

# The engine's own rules, which it keeps to itself: full batches that wait for a stage, batches that are issued to a GPU.
_BATCHES_AHEAD, _BATCHES_ON_DEVICE = 2, 2
# From when a device is free until the next stage, which waits for it, is awake.
_WAKE_MS = 0.1


class SimulatedStage:
    """A stage of one replica with what waits for it.

    Attributes:
        waiting: Of each item, where its request waits.
        batches: The sizes of those that it has worked on.
    """

    def __init__(self, profile: StageProfile, number: int, limit: int, device: str) -> None:
        """Nothing waits yet."""
        self.profile, self.number, self.limit, self.device = profile, number, limit, device
        self.waiting: deque[Queue] = deque()
        self.filled, self.emptied = Queue(), Queue()
        self.batches: list[int] = []
        self._costs: dict[int, Cost] = {}

    def cost(self, batch: int) -> Cost:
        """Of a batch of this size."""
        if batch not in self._costs:
            self._costs[batch] = self.profile.cost(batch)
        return self._costs[batch]


class SimulatedReplica:
    """A replica worker.

    Attributes:
        room: Requests that it may hold.
        in_flight: Requests that it holds.
        interpreter: Python's lock: what it computes itself, one thing at a time. Without stages it is the only thread.
        stages: In order.
        stage_ms: Of each device and stage, for how long it was held.
    """

    def __init__(
        self,
        clock: Clock,
        cores: SimulatedCores,
        devices: Mapping[str, Resource],
        stages: Sequence[SimulatedStage],
        room: int,
        batch_cpu_ms: float = 0.0,
        *,
        pipelined: bool,
    ) -> None:
        """Start the stages' threads where it is made of stages; each batch takes `batch_cpu_ms` beside the stage's own time."""
        self.room, self.stages, self.pipelined = room, stages, pipelined
        self.in_flight = 0
        self.interpreter = Resource(clock)
        self.stage_ms: dict[tuple[str, int], float] = defaultdict(float)
        self._clock, self._cores, self._devices = clock, cores, devices
        self._batch_cpu_ms = batch_cpu_ms
        if pipelined:
            for stage, behind in zip(stages, [*stages[1:], None], strict=True):
                clock.start(self._run_stage(stage, behind))

    def serve(self, beside: Cost) -> Process:
        """A request's way through it.

        Args:
            beside: What it takes beside the stages.
        """
        yield from self.interpreter.take()
        yield from self._cores.work(beside)
        if self.pipelined:
            self.interpreter.give()
            for _ in range(self.stages[0].profile.items_per_request):
                done = Queue()
                self._put(self.stages[0], [done])
                yield done
        else:
            yield from self._run_alone(self.stages[0])
            self.interpreter.give()

    def _put(self, stage: SimulatedStage | None, items: list[Queue]) -> None:
        """Hand items to a stage; behind the last, wake their requests."""
        if stage is None:
            for done in items:
                self._clock.wake(done)
            return
        stage.waiting.extend(items)
        self._clock.wake(stage.filled)

    def _run_stage(self, stage: SimulatedStage, behind: SimulatedStage | None) -> Process:
        """A stage's thread."""
        issued = Resource(self._clock, _BATCHES_ON_DEVICE)
        on_gpu = stage.device.startswith("cuda")
        while True:
            if on_gpu:
                yield from issued.take()
            while behind is not None and len(behind.waiting) >= _BATCHES_AHEAD * behind.limit:
                yield behind.emptied
            while not stage.waiting:
                yield stage.filled
            if on_gpu:
                items = self._batch(stage)
                yield from self.interpreter.take()
                yield from self._cores.compute(stage.cost(len(items)).cpu_ms + self._batch_cpu_ms)
                self.interpreter.give()
                self._clock.start(self._run_on_gpu(stage, items, behind, issued))
            elif stage.profile.exclusive:  # the batch is formed when the device is there
                yield from self._devices[stage.device].take()
                yield _WAKE_MS
                items = self._batch(stage)
                yield from self._occupy(stage, stage.cost(len(items)))
                yield from self._cores.compute(self._batch_cpu_ms)
                self._put(behind, items)
            else:
                items = self._batch(stage)
                yield from self._cores.work(stage.cost(len(items)))
                yield from self._cores.compute(self._batch_cpu_ms)
                self._put(behind, items)

    def _run_on_gpu(
        self, stage: SimulatedStage, items: list[Queue], behind: SimulatedStage | None, issued: Resource
    ) -> Process:
        """A batch that was issued: the device has one at a time, of whatever process."""
        yield from self._devices[stage.device].take()
        yield from self._occupy(stage, Cost(stage.cost(len(items)).wall_ms))
        issued.give()
        self._put(behind, items)

    def _run_alone(self, stage: SimulatedStage) -> Process:
        """A model without stages: the thread that has the request does it all."""
        if stage.profile.exclusive:
            yield from self._devices[stage.device].take()
            yield from self._occupy(stage, stage.cost(1))
        else:
            yield from self._cores.work(stage.cost(1))
        stage.batches.append(1)

    def _batch(self, stage: SimulatedStage) -> list[Queue]:
        items = [stage.waiting.popleft() for _ in range(min(stage.limit, len(stage.waiting)))]
        stage.batches.append(len(items))
        self._clock.wake(stage.emptied)
        return items

    def _occupy(self, stage: SimulatedStage, cost: Cost) -> Process:
        """Work on a device that was taken, and give it back."""
        began = self._clock.now
        yield from self._cores.work(cost)
        self.stage_ms[stage.device, stage.number] += self._clock.now - began
        self._devices[stage.device].give()
