"""Times a call: warm-up first, then the median of several, wall and CPU time both. Runs in a profiler's process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from multigpu_inference.planner.profile import Cost

_FEWEST, _MOST = 5, 40
_ENOUGH_S = 0.4  # of timed calls
# A call that takes longer than the first is timed once after its warm-up; than the second, not again.
_SLOW_S, _VERY_SLOW_S = 1.5, 8.0


def time_calls(call: Callable[[Any], Any], prepare: Callable[[], Any], tick: Callable[[], None]) -> Cost:
    """What a call takes when it is warm.

    Args:
        call: What is timed. It returns when its work is done, on a device too.
        prepare: Makes its argument anew for each call, untimed: a function may work in place.
        tick: Called before each call: whoever waits for this process learns that it goes on.
    """
    first = _time(call, prepare, tick)
    if first.wall_ms > _VERY_SLOW_S * 1e3:
        return first
    times: list[Cost] = []
    until = time.perf_counter() + _ENOUGH_S
    while len(times) < _FEWEST or (time.perf_counter() < until and len(times) < _MOST):
        times.append(_time(call, prepare, tick))
        if times[-1].wall_ms > _SLOW_S * 1e3:
            break
    return Cost(statistics.median(t.wall_ms for t in times), statistics.median(t.cpu_ms for t in times))


def _time(call: Callable[[Any], Any], prepare: Callable[[], Any], tick: Callable[[], None]) -> Cost:
    tick()
    argument = prepare()
    cpu, wall = time.process_time(), time.perf_counter()
    call(argument)
    return Cost((time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3)
