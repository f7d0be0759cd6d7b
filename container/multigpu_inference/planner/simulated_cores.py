"""The CPU in a simulation: what computes takes a core, in turns with whatever else wants one."""

from __future__ import annotations

from multigpu_inference.planner.clock import Process, Queue, Resource
from multigpu_inference.planner.profile import Cost

# How long a core goes on with one before it looks at the others, as kernels do; what is shorter than the second goes first.
_TURN_MS, _SHORT_MS = 4.0, 1.0


class SimulatedCores(Resource):
    """So many cores."""

    def compute(self, cpu_ms: float) -> Process:
        """CPU time on one core."""
        urgent = cpu_ms < _SHORT_MS
        while cpu_ms > 0:
            turn_ms = min(cpu_ms, _TURN_MS)
            yield from self.take(urgent=urgent)
            yield turn_ms
            self.give()
            cpu_ms -= turn_ms

    def work(self, cost: Cost) -> Process:
        """What takes `wall_ms` alone on the machine: its CPU time on as many cores as that needs, then the rest."""
        threads = max(1, round(cost.cpu_ms / cost.wall_ms)) if cost.wall_ms > 0 else 1
        share_ms = cost.cpu_ms / threads
        if threads == 1:
            yield from self.compute(share_ms)
        else:
            done, left = Queue(), [threads]
            for _ in range(threads):
                self._clock.start(self._one_thread(share_ms, done, left))
            yield done
        yield max(0.0, cost.wall_ms - share_ms)

    def _one_thread(self, cpu_ms: float, done: Queue, left: list[int]) -> Process:
        yield from self.compute(cpu_ms)
        left[0] -= 1
        if not left[0]:
            self._clock.wake(done)
