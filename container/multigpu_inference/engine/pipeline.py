"""The stages of one replica in a row, each on its own device and, on CUDA, on its own stream.

    item ──► stage 1 on device A, stream a ──event──► stage 2 on device B, stream b ──event──► result

Runs in a replica worker, and wherever else a script calls its model. A stage takes one item at a time; callers on
several threads overlap, each in another stage. The only wait for a device is the one for the event behind the last
stage.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from multigpu_inference.engine import hops, structure
from multigpu_inference.engine.stage import Stage

if TYPE_CHECKING:
    import torch


class Pipeline:
    """A chain of stages that is called like a function."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        """Chain stages.

        Args:
            stages: At least one, in the order in which an item passes them.
        """
        if not stages:
            raise ValueError("a pipeline needs at least one stage")
        self.stages = tuple(stages)
        self._runners = [_runner(stage) for stage in stages]

    @property
    def devices(self) -> tuple[str, ...]:
        """The device of each stage, such as `("cuda:0", "cuda:1")`."""
        return tuple(str(stage.device) for stage in self.stages)

    def __call__(self, item: Any) -> Any:
        """Take one item through all stages; its result, ready, on the last stage's device."""
        # Every stage's result is held until the last event: memory that a stream's allocator gets back earlier could be
        # given out again while another stream still reads it.
        held, passes = [item], list[_Pass]()
        for runner in self._runners:
            passed = runner.run(held[-1], passes[-1] if passes else None)
            passes.append(passed)
            held.append(passed.result)
        passes[-1].wait()
        _hand_over(held[-1])
        for number, passed in enumerate(passes, 1):
            hops.record(f"stage_{number}_ms", passed.milliseconds())
        return held[-1]


def _hand_over(result: Any) -> None:
    """Let the caller's streams use the result: its memory belongs to the last stage's stream, which would reuse it earlier."""
    for _, leaf in structure.leaves(result):
        if structure.is_tensor(leaf) and leaf.is_cuda:
            import torch

            leaf.record_stream(torch.cuda.current_stream(leaf.device))


class _Pass:
    """One item's way through one stage, on a device whose work is done when the call returns."""

    def __init__(self, result: Any, seconds: float) -> None:
        self.result = result
        self._seconds = seconds

    def wait(self) -> None:
        """Wait until the result is there."""

    def milliseconds(self) -> float:
        """How long the stage worked."""
        return self._seconds * 1e3


class _StageRunner:
    """Runs a stage on the CPU."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._turn = threading.Lock()

    def run(self, item: Any, before: _Pass | None) -> _Pass:
        if before is not None:
            before.wait()
        with self._turn:
            started = time.perf_counter()
            return _Pass(self._call(item), time.perf_counter() - started)

    def _call(self, item: Any) -> Any:
        results = self._stage([item])
        if len(results) != 1:
            raise ValueError(f"{type(self._stage).__name__} returned {len(results)} results for 1 item")
        return results[0]


class _CudaPass(_Pass):
    """One item's way through a stage that only issues work."""

    def __init__(self, result: Any, begin: torch.cuda.Event, end: torch.cuda.Event) -> None:
        super().__init__(result, 0.0)
        self._begin = begin
        self.end = end

    def wait(self) -> None:
        self.end.synchronize()

    def milliseconds(self) -> float:
        return float(self._begin.elapsed_time(self.end))


class _CudaStageRunner(_StageRunner):
    """Runs a stage on a stream of its own."""

    def __init__(self, stage: Stage) -> None:
        import torch

        super().__init__(stage)
        self._stream = torch.cuda.Stream(device=stage.device)

    def run(self, item: Any, before: _Pass | None) -> _Pass:
        import torch

        callers_stream = torch.cuda.current_stream(self._stream.device)
        with self._turn, torch.cuda.stream(self._stream):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            if isinstance(before, _CudaPass):
                self._stream.wait_event(before.end)  # on the device; this thread goes on
            elif before is None:
                self._stream.wait_stream(callers_stream)  # where the caller may still be making the item
            begin.record()
            result = self._call(item)
            end.record()
        return _CudaPass(result, begin, end)


def _runner(stage: Stage) -> _StageRunner:
    return _CudaStageRunner(stage) if str(stage.device).startswith("cuda") else _StageRunner(stage)
