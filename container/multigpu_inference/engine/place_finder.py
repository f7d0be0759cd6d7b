"""Finds out where `input_fn` and `output_fn` can run, with the sample or the first request, and answers it meanwhile.

The pool runs `input_fn`, a replica worker the whole request in the stock order beside it (`trial`), the pool `output_fn`. A
function that fails or answers otherwise in the pool stays in the replica worker; one logged line says why and what it costs.
"""

from __future__ import annotations

import asyncio
import time

from multigpu_inference import log
from multigpu_inference.engine.function_places import FunctionPlaces
from multigpu_inference.engine.process_pool import ProcessPool
from multigpu_inference.engine.replica import Replicas
from multigpu_inference.engine.request import Request
from multigpu_inference.errors import (
    DeadlineExceeded,
    OutOfMemory,
    PayloadTooLarge,
    ServingError,
    Unavailable,
    UnknownStructure,
    WorkerDied,
    WorkerKilled,
)
from multigpu_inference.ipc import Blob
from multigpu_inference.messages import INPUT_FN, OUTPUT_FN, STOCK_ORDER

_TOO_SLOW = "trials took longer than a request may"
_TOO_SLOW_AFTER = 2.5  # requests' times: a script that is too slow for running twice in one would never be found out
_COST = "it runs on the replica's thread, and the replica's device waits meanwhile"


class PlaceFinder:
    """Answers requests; as long as the places are unknown, one at a time and by a trial."""

    def __init__(self, places: FunctionPlaces, pool: ProcessPool, replicas: Replicas) -> None:
        """Keep what a request needs."""
        self._places = places
        self._pool = pool
        self._replicas = replicas
        self._lock = asyncio.Lock()
        self._lost_s = 0.0  # that trials have taken which came to no end

    async def answer(self, request: Request) -> Blob:
        """Take a request from its body to its answer's; `ServingError` where it cannot be answered."""
        if self._places.unknown:
            async with self._lock:  # requests that come meanwhile wait for what the first one finds
                if self._places.unknown:
                    return await self._find_out(request)
        try:
            return await request.run(self._pool, self._replicas, self._places)
        except UnknownStructure:
            async with self._lock:
                return await self._find_out(request)

    async def _find_out(self, request: Request) -> Blob:
        """Answer a request in the stock order, and settle the places; where it fails, the next request tries again."""
        began, limit_s = time.monotonic(), request.invocation.deadline - request.invocation.arrived
        try:
            pooled, keep_input = await self._in_pool(request, INPUT_FN, request.source)
            reply = await request.reply(self._replicas, request.task(STOCK_ORDER, trial=True), [*request.source, *pooled])
            body, *prediction = request.note(reply)
            answer, findings = (body, request.content_type), reply.result.findings
            assert findings is not None  # a trial's result always has some
            keep_output = findings.keep_output or await self._compare_output(request, prediction, answer)
        except asyncio.CancelledError:
            if self._places.unknown and time.monotonic() >= request.invocation.deadline:
                self._lost_s += time.monotonic() - began
                if self._lost_s >= _TOO_SLOW_AFTER * limit_s:
                    self._settle(_TOO_SLOW, _TOO_SLOW)
            raise
        request.content_type = answer[1]
        self._places.add_tensors(findings.device_paths, findings.tensor_paths)
        self._settle(keep_input or findings.keep_input, keep_output)
        return body

    def _settle(self, keep_input: str | None, keep_output: str | None) -> None:
        self._places.settle(input_in_pool=keep_input is None, output_in_pool=keep_output is None)
        for function, reason in ((INPUT_FN, keep_input), (OUTPUT_FN, keep_output)):
            place = "pool" if reason is None else "replica"
            log.event("function_placed", function=function, runs_in=place, because=reason, costs=reason and _COST)

    async def _compare_output(self, request: Request, prediction: list[Blob], answer: tuple[Blob, str]) -> str | None:
        """Why `output_fn` must stay in the replica worker; None where the pool gave the same answer."""
        body, failed = await self._in_pool(request, OUTPUT_FN, prediction)
        if failed is not None:
            return failed
        if request.content_type != answer[1]:
            return f"it answers {request.content_type} in a pool worker and {answer[1]} in the replica worker"
        if request.arena.memory.read(body[0]) != request.arena.memory.read(answer[0]):
            return "it gives another answer in a pool worker, so it depends on what model_fn has set"
        return None

    async def _in_pool(self, request: Request, function: str, blobs: list[Blob]) -> tuple[list[Blob], str | None]:
        """What a function gives in the pool; or nothing, and why it cannot run there.

        Raises:
            ServingError: where that was for want of a worker, of time or of memory, which says nothing of the function, or
                where the worker died with it for the first time or from outside, which need not have been its fault.
        """
        try:
            return await request.step(self._pool, request.task((function,), trial=True), blobs), None
        except (Unavailable, DeadlineExceeded, PayloadTooLarge, OutOfMemory):
            raise
        except WorkerDied as died:
            if not request.alone or isinstance(died, WorkerKilled):
                raise
            return [], "it stops its process in a pool worker"
        except ServingError as error:
            return [], f"it fails in a pool worker ({error.detail or error.message})"
