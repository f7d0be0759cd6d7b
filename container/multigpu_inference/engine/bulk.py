"""A bulk request: what `fetch_fn` gave as several inputs, each taken through the engine as a request of its own.

Side by side, so that one client's list uses all replicas; answered as a JSON array in the items' order. An item that fails, or
does not make it in time, is an error in its place. (The HTTP front end's `multipart/mixed` is another way to the same: there
the parts never meet here.)
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from multigpu_inference.arena import Arena, end_of
from multigpu_inference.content_type import JSON, media_type
from multigpu_inference.engine.poison_list import PoisonList
from multigpu_inference.engine.request import FetchedInput, Request
from multigpu_inference.engine.request_arena import RequestArena
from multigpu_inference.errors import FunctionFailed, ResponseTooLarge, ServingError
from multigpu_inference.fair_places import FairPlaces
from multigpu_inference.ipc import Blob, Slice
from multigpu_inference.messages import Invocation

# Items end this much before the request does, or this share of the time that is left: so that those that are done are answered.
_MARGIN_S, _MARGIN_SHARE = 0.5, 0.1

Outcome: TypeAlias = Callable[[Request, Callable[[], Awaitable[Blob]]], Awaitable[tuple[ServingError | None, Blob]]]


class BulkRequests:
    """Answers bulk requests."""

    def __init__(
        self, outcome: Outcome, answer: Callable[[Request], Awaitable[Blob]], poison: PoisonList, places: int, max_bytes: int
    ) -> None:
        """Keep what an item needs.

        Args:
            outcome: Runs what answers a request, by its deadline, and tells the log and the metrics how it went.
            answer: Takes a fetched request to its answer.
            poison: Remembers an item that kills.
            places: How many items may be in the engine at a time. Bulk requests take turns; others come in beside them.
            max_bytes: Of all answers of a bulk request together.
        """
        self._outcome = outcome
        self._answer = answer
        self._poison = poison
        self._places = FairPlaces(places)
        self._max_bytes = max_bytes
        # As many as there are places: a replica on a GPU pins an arena when it is given it, which costs more than a photo.
        self._arenas: list[RequestArena] = []

    async def answer(self, request: Request, inputs: Sequence[FetchedInput]) -> Blob:
        """Answer all items, in their order: a JSON array."""
        began = time.monotonic()
        request.items, request.content_type = len(inputs), JSON
        left_s = max(0.0, request.invocation.deadline - began)
        deadline = request.invocation.deadline - min(_MARGIN_S, _MARGIN_SHARE * left_s)
        room = _Room(self._max_bytes)
        async with asyncio.TaskGroup() as group:
            items = [
                group.create_task(self._answer_item(request, each, _invocation(request.invocation, number, deadline), room))
                for number, each in enumerate(inputs)
            ]
        request.spans += (("items_ms", began, time.monotonic(), len(inputs)),)
        joined = b"[" + b",\n".join(item.result() for item in items) + b"]\n"
        answer = request.arena.memory.write([joined], request.used)  # a packet with so many bytes would need a file of its own
        request.used = max(request.used, end_of(answer))
        return answer[0]

    async def _answer_item(self, request: Request, given: FetchedInput, invocation: Invocation, room: _Room) -> bytes:
        """One item's answer, or why there is none; JSON either way."""
        item = Request(invocation, b"", request.arena, request.spans)

        async def run() -> Blob:
            if given.item.failure is not None:
                raise given.item.failure.error()
            async with self._places.place(request):
                answer = await self._answer_in_arena(item, request, given)
            room.take(len(answer))
            return answer

        error, answer = await self._outcome(item, run)
        if error is None:
            assert isinstance(answer, bytes)  # as `run` gave it
            return answer
        return json.dumps(error.content(invocation.request_id) | {"status": error.status}).encode()

    async def _answer_in_arena(self, item: Request, request: Request, given: FetchedInput) -> bytes:
        """Answer an item in an arena of its own, from what stands in the whole request's."""
        arena = self._arenas.pop() if self._arenas else RequestArena(Arena.create())
        try:
            whole = request.arena.memory
            given_bytes = [whole.array(blob) if isinstance(blob, Slice) else blob for blob in (*given.data, *given.store)]
            blobs = arena.memory.write(given_bytes, 0)
            item.arena = arena
            item.take(blobs[: len(given.data)], blobs[len(given.data) :])
            answer = arena.memory.read(await item.answered(lambda: self._answer(item), self._poison))
        except BaseException:
            arena.close()  # who knows what still writes there
            raise
        if arena.spoiled:
            arena.close()
        else:
            arena.memory.release(item.used)
            self._arenas.append(arena)
        return _json(answer, item.content_type)


class _Room:
    """How many bytes a bulk request's answers may still have together."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes

    def take(self, count: int) -> None:
        if count > self._left:
            raise ResponseTooLarge("with this item's answer the list's would be larger than the response limit")
        self._left -= count


def _json(answer: bytes, content_type: str) -> bytes:
    """An answer that can stand in an array: anything else would break those of all other items."""
    try:
        if media_type(content_type) != JSON:
            raise ValueError(f"its type is {content_type}")
        json.loads(answer)
    except ValueError as error:
        failed = FunctionFailed("the item's answer is not JSON")
        failed.detail = f"an item of a bulk request must be answered in JSON: {error}"
        raise failed from None
    return answer.strip()


def _invocation(of_all: Invocation, number: int, deadline: float) -> Invocation:
    return replace(of_all, request_id=f"{of_all.request_id}-{number}", accept=JSON, deadline=deadline, arena=0)
