"""A bulk request: what `fetch_fn` gave as several inputs, each taken through the engine as a request of its own.

Side by side, so that one client's list uses all replicas; answered as a JSON array in the items' order. An item that fails is
an error in its place. (The HTTP front end's `multipart/mixed` is another way to the same: there the parts never meet here.)
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from multigpu_inference.arena import Arena
from multigpu_inference.engine.request import Fetched, Request
from multigpu_inference.engine.request_arena import RequestArena
from multigpu_inference.errors import FunctionFailed, ResponseTooLarge, ServingError, Unprocessable, WorkerDied
from multigpu_inference.ipc import Blob
from multigpu_inference.messages import Invocation

JSON = "application/json"
# Items end this much before the request does, or this share of the time that is left: so that those that are done are answered.
_MARGIN_S, _MARGIN_SHARE = 0.5, 0.1


class BulkRequests:
    """Answers bulk requests."""

    def __init__(
        self,
        outcome: Callable[[Request, Callable[[], Awaitable[Blob]]], Awaitable[tuple[ServingError | None, Blob]]],
        answer: Callable[[Request], Awaitable[Blob]],
        places: int,
        max_bytes: int,
    ) -> None:
        """Keep what an item needs.

        Args:
            outcome: Runs what answers a request, and tells the log and the metrics how it went.
            answer: Takes a fetched request to its answer.
            places: How many items may be in the engine at a time, of all bulk requests together: others come in between.
            max_bytes: Of all answers of a request together.
        """
        self._outcome = outcome
        self._answer = answer
        self._places = asyncio.Semaphore(places)
        self._max_bytes = max_bytes

    async def answer(self, request: Request, items: Sequence[Fetched]) -> Blob:
        """Answer all items, in their order.

        Raises:
            ResponseTooLarge: where together they are larger than an answer may be.
        """
        answers: dict[int, bytes] = {}

        async def answer_item(number: int) -> None:
            async with self._places:
                answers[number] = await self._answer_item(request, items[number], number)
            if sum(map(len, answers.values())) > self._max_bytes:
                raise ResponseTooLarge

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(len(items)):
                    group.create_task(answer_item(number))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        request.content_type = JSON
        return b"[" + b",\n".join(answers[number] for number in range(len(items))) + b"]\n"

    async def _answer_item(self, request: Request, fetched: Fetched, number: int) -> bytes:
        """One item's answer, or why there is none; JSON either way."""
        invocation = _invocation(request.invocation, number)
        item = Request(invocation, b"", request.arena)
        answer = b""

        async def run() -> Blob:
            nonlocal answer
            if fetched.item.failure is not None:
                raise fetched.item.failure.error()
            try:
                answer = await self._try(item, request, fetched)
            except WorkerDied:  # once more from its beginning, and alone, as any request
                item.begin()
                item.alone = True
                try:
                    answer = await self._try(item, request, fetched)
                except WorkerDied:
                    raise Unprocessable from None
            return answer

        error, _ = await self._outcome(item, run)
        if error is None:
            return answer.rstrip()
        return json.dumps(json.loads(error.body(invocation.request_id)) | {"status": error.status}).encode()

    async def _try(self, item: Request, request: Request, fetched: Fetched) -> bytes:
        """Answer an item in an arena of its own, from what stands in the whole request's."""
        read, arena = request.arena.memory.read, RequestArena(Arena.create())
        try:
            blobs = arena.memory.write([read(blob) for blob in (*fetched.data, *fetched.store)], 0)
            item.arena = arena
            item.take(blobs[: fetched.item.data], blobs[fetched.item.data :])
            answer = arena.memory.read(await self._answer(item))
        finally:
            arena.close()
        if item.content_type != JSON:
            failed = FunctionFailed("an item's answer is not JSON")
            failed.detail = f"an item of a bulk request must be answered as {JSON}, not as {item.content_type}"
            raise failed
        return answer


def _invocation(of_all: Invocation, number: int) -> Invocation:
    left_s = max(0.0, of_all.deadline - time.monotonic())
    deadline = of_all.deadline - min(_MARGIN_S, _MARGIN_SHARE * left_s)
    return replace(of_all, request_id=f"{of_all.request_id}-{number}", accept=JSON, deadline=deadline, arena=0)
