"""Times a stage at batch sizes 1, 2, 4 … and watches its device's memory. Runs in a profiler's process.

It stops at the stage's own limit, where a batch does not fit into memory, and where larger batches have stopped to help.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from multigpu_inference.engine.device_error import DeviceErrorKind, device_error_kind
from multigpu_inference.engine.stage import Stage, batch_key, batch_limit, room
from multigpu_inference.planner.memory import PeakMemory
from multigpu_inference.planner.profile import BatchCost, Cost
from multigpu_inference.planner.profiler import Ticker
from multigpu_inference.planner.stage_tap import run_stage
from multigpu_inference.planner.stopwatch import time_calls

LARGEST_BATCH = 64
# A size whose items take no less than this share of the best so far helps nothing; two such sizes in a row end the search.
_NO_HELP = 0.97
_CUDA_CALLS = 7


def time_stage(stage: Stage, number: int, items: Sequence[Any], ticker: Ticker) -> dict[int, BatchCost]:
    """The cost of a stage's batches.

    Args:
        stage: What to time.
        number: Its place among the stages, from 1.
        items: What a request gave it: batches are made of the first, which shares its key with itself.
        ticker: Is told what is timed.
    """
    item = items[0]
    limit = batch_limit(stage, batch_key(stage, item), min(LARGEST_BATCH, stage.max_batch_size))
    costs: dict[int, BatchCost] = {}
    best, helpless = float("inf"), 0
    for size in batch_sizes(limit):
        ticker.begin(f"stage {number}, batch {size}")
        try:
            costs[size] = _time_batch(stage, [item] * size, ticker.tick)
        except BaseException as error:
            if not costs or device_error_kind(error) is not DeviceErrorKind.OUT_OF_MEMORY:
                raise
            break
        per_item = costs[size].cost.wall_ms / size
        helpless = helpless + 1 if per_item > _NO_HELP * best else 0
        best = min(best, per_item)
        if helpless == 2:
            break
    return costs


def batch_sizes(limit: int) -> list[int]:
    """Powers of two up to a limit, and the limit."""
    return sorted({1 << n for n in range(limit.bit_length())} | {limit})


def _time_batch(stage: Stage, batch: list[Any], tick: Callable[[], None]) -> BatchCost:
    device = str(stage.device)
    with PeakMemory(device) as memory:
        if device.startswith("cuda"):
            cost = _time_on_cuda(stage, batch, tick)
        else:
            with room(stage):
                cost = time_calls(lambda items: run_stage(stage, items), lambda: batch, tick)
    return BatchCost(cost, memory.grown_bytes)


def _time_on_cuda(stage: Stage, batch: list[Any], tick: Callable[[], None]) -> Cost:
    """Device time between two events, and the CPU time that issuing it took. Waits as a pipeline does: without spinning."""
    import torch

    stream = torch.cuda.Stream(device=stage.device)
    made = torch.cuda.Event(blocking=True)
    made.record(torch.cuda.current_stream(stage.device))
    stream.wait_event(made)
    walls, cpus = [], []
    for call in range(_CUDA_CALLS):
        tick()
        begin, end = (torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(2))
        with torch.cuda.stream(stream):
            begin.record(stream)
            cpu = time.thread_time()
            results = run_stage(stage, batch)
            cpu = time.thread_time() - cpu
            end.record(stream)
        end.synchronize()
        del results
        if call > 1:
            walls.append(float(begin.elapsed_time(end)))
            cpus.append(cpu * 1e3)
    return Cost(statistics.median(walls), statistics.median(cpus))
