"""The stages of one replica in a row, each with a thread of its own on its own device and, on CUDA, its own streams.

    caller ──► queue ──► stage 1 on device A ──► queue ──► stage 2 on device B ──► the caller, who waited
              batches    thread, stream a     event, copy    thread, stream b     event

Runs in a replica worker, and wherever else a script calls its model. Callers on several threads hand in an item each and
wait for its result; while stage 2 works on some, stage 1 works on the next. With one caller it is what the stages give
when they are called one after another. A stage may be made of branches that work on an item at the same time.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from typing import Any

from multigpu_inference.engine import hops, interest, structure
from multigpu_inference.engine.branches import Branches
from multigpu_inference.engine.branches_runner import BranchesRunner
from multigpu_inference.engine.job import Job
from multigpu_inference.engine.stage import Stage
from multigpu_inference.engine.stage_runner import Runner, StageRunner


class Pipeline:
    """A chain of stages that is called like a function, from any number of threads."""

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        max_batch_size: int | None = None,
        max_batch_delay_ms: float = 0.0,
        streams: int = 1,
    ) -> None:
        """Chain stages. Their threads start with the first call.

        Args:
            stages: At least one, in the order in which an item passes them.
            max_batch_size: The most items that a stage takes at a time, where it would take more.
            max_batch_delay_ms: How long a stage that could begin waits for its batch to become full, from when its oldest
                item came; 0: it takes what there is.
            streams: How many batches a stage works on at a time: so many threads, each with a stream of its own on CUDA, share
                its weights and call it at the same time. With more than one it must bear that: what it changes when it is
                called (a counter, a buffer) belongs to one call.
        """
        if not stages:
            raise ValueError("a pipeline needs at least one stage")
        limits = [_limit(stage, max_batch_size) for stage in stages]
        self.stages = tuple(stages)
        self._limits = limits
        self._streams = streams
        self._max_delay_s = max_batch_delay_ms / 1e3
        # By process: a child that was forked has none of the threads, so it starts its own.
        self._runners: dict[int, list[Runner]] = {}
        self._closed = False
        weakref.finalize(self, _close, self._runners)

    @property
    def devices(self) -> tuple[str, ...]:
        """The device of each stage, such as `("cuda:0", "cuda:1")`."""
        return tuple(str(stage.device) for stage in self.stages)

    def __call__(self, item: Any) -> Any:
        """Take one item through all stages; its result, ready, on the last stage's device.

        Raises:
            BaseException: what a stage raised for this item.
            ServingError: where nobody waits for the request any more that this thread works on (`interest`).
            RuntimeError: where the pipeline is closed.
        """
        job = Job(item, interest.current())
        self._first().hand([job])
        result = job.result()
        _hand_over(result)
        for span in job.spans():
            hops.record(span)
        return result

    def map(self, items: Sequence[Any]) -> list[Any]:
        """Take several items through all stages together; their results, in order. One that fails raises when all are done."""
        jobs = [Job(item, interest.current()) for item in items]
        self._first().hand(jobs)
        failed: BaseException | None = None
        for job in jobs:
            try:
                _hand_over(job.result())
            except BaseException as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return [job.value for job in jobs]

    def close(self) -> None:
        """Refuse further calls, and end the threads when those under way are done. Does not wait; optional."""
        self._closed = True
        _close(self._runners)

    def _first(self) -> Runner:
        runners = self._runners.get(os.getpid())
        if runners is None:
            # Callers may come here together: all go on with what one of them has stored.
            runners = self._runners.setdefault(os.getpid(), self._make_runners())
        for runner in runners:
            runner.start()
        if self._closed:
            runners[0].close()  # they may have been started after `close` looked for them
        return runners[0]

    def _make_runners(self) -> list[Runner]:
        runners: list[Runner] = []
        behind = None
        for number, stage in reversed(list(enumerate(self.stages, 1))):
            behind = self._runner(stage, number, behind)
            runners.insert(0, behind)
        return runners

    def _runner(self, stage: Stage, number: int, behind: Runner | None) -> Runner:
        limit = self._limits[number - 1]
        if not isinstance(stage, Branches):
            return _stage_runner(stage)(stage, number, limit, self._max_delay_s, behind, self._streams)
        return BranchesRunner(
            stage,
            number,
            behind,
            lambda branch, join: _stage_runner(branch)(
                branch, number, min(limit, branch.max_batch_size), self._max_delay_s, join, branch.threads or self._streams
            ),
        )


def _limit(stage: Stage, max_batch_size: int | None) -> int:
    """How many items a stage takes at a time."""
    limit = stage.max_batch_size if max_batch_size is None else min(stage.max_batch_size, max_batch_size)
    if limit < 1:
        raise ValueError(f"{type(stage).__name__} would take {limit} items at a time: max_batch_size is at least 1")
    return limit


def _stage_runner(stage: Stage) -> type[StageRunner]:
    if not str(stage.device).startswith("cuda"):
        return StageRunner
    from multigpu_inference.engine.cuda_stage_runner import CudaStageRunner

    return CudaStageRunner


def _close(runners: dict[int, list[Runner]]) -> None:
    """End the threads of this process; whatever another one had is not touched, its locks least of all."""
    mine = runners.get(os.getpid())
    if mine is not None:
        mine[0].close()


def _hand_over(result: Any) -> None:
    """Let the caller's streams use the result: its memory belongs to the last stage's stream, which would reuse it earlier."""
    for _, leaf in structure.leaves(result):
        if structure.is_tensor(leaf) and leaf.is_cuda:
            import torch

            leaf.record_stream(torch.cuda.current_stream(leaf.device))
