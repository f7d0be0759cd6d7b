from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from multigpu_inference.arena import INLINE_BYTES, Arena, end_of
from multigpu_inference.engine.bulk import BulkRequests
from multigpu_inference.engine.poison_list import PoisonList
from multigpu_inference.engine.request import FetchedInput, Request
from multigpu_inference.engine.request_arena import RequestArena
from multigpu_inference.errors import ClientGone, DeadlineExceeded, ServingError, WorkerDied
from multigpu_inference.ipc import Blob, Slice, size_of
from multigpu_inference.messages import Failure, FetchedItem, Invocation

Answer = Callable[[Request], Awaitable[Blob]]


class Bulk:
    """Bulk requests over an engine whose answers are a function."""

    def __init__(self, answer: Answer, places: int = 4, max_bytes: int = 1_000_000) -> None:
        self.ended: list[tuple[str, str | None]] = []  # how each item did, in the order of their ends
        self.items: list[Request] = []
        self._requests = BulkRequests(self._outcome, answer, PoisonList(), places, max_bytes)

    async def _outcome(self, item: Request, run: Callable[[], Awaitable[Blob]]) -> tuple[ServingError | None, Blob]:
        error: ServingError | None = None
        body: Blob = b""
        self.items.append(item)
        try:
            async with asyncio.timeout_at(item.invocation.deadline):
                body = await run()
        except TimeoutError:
            error = DeadlineExceeded()
        except ServingError as failed:
            error = failed
        except asyncio.CancelledError:
            error = ClientGone()
        self.ended.append((item.invocation.request_id, None if error is None else error.code))
        return error, body

    async def ask(self, inputs: list[bytes | FetchedInput], seconds: float = 10.0) -> list[Any]:
        arena = RequestArena(Arena.create())
        now = time.monotonic()
        request = Request(Invocation("r", "a/b", "*/*", {}, now, now + seconds), b"", arena, (("fetch_ms", now, now, 1),))
        given = [each if isinstance(each, FetchedInput) else taken(arena, each) for each in inputs]
        body = await self._requests.answer(request, given)
        assert end_of([body]) <= request.used
        assert size_of(body) <= INLINE_BYTES or isinstance(body, Slice)  # never through a file made for it
        assert request.content_type == "application/json"
        assert request.items == len(inputs)
        assert [name for name, *_ in request.spans] == ["fetch_ms", "items_ms"]
        found: list[Any] = json.loads(arena.memory.read(body))
        return found


def taken(arena: RequestArena, data: bytes) -> FetchedInput:
    """An input, in the arena where it is large."""
    return FetchedInput(FetchedItem(1), arena.memory.write([data], 0), [])


async def echo(item: Request) -> Blob:
    item.content_type = "application/json"
    return json.dumps(bytes(item.arena.memory.read(item.source[0])).decode()).encode()


def run(main: Coroutine[Any, Any, None]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(20):
            await main

    asyncio.run(in_time())


def test_each_item_is_a_request_of_its_own_and_answers_come_in_order() -> None:
    async def answer(item: Request) -> Blob:
        text = bytes(item.arena.memory.read(item.source[0])).decode()
        await asyncio.sleep(0.02 if text == "a" else 0)
        return await echo(item)

    async def main() -> None:
        bulk = Bulk(answer)
        assert await bulk.ask([b"a", b"b", b"c" * 200_000]) == ["a", "b", "c" * 200_000]
        assert bulk.ended[-1] == ("r-0", None)
        assert {item.invocation.accept for item in bulk.items} == {"application/json"}
        assert all(item.spans[0][0] == "fetch_ms" for item in bulk.items)  # what they waited for as well

    run(main())


def test_arenas_are_used_again_unless_they_are_spoiled() -> None:
    numbers = list[int]()

    async def answer(item: Request) -> Blob:
        numbers.append(item.arena.number)
        item.arena.spoiled = bytes(item.arena.memory.read(item.source[0])) == b"spoil"
        return await echo(item)

    async def main() -> None:
        bulk = Bulk(answer, places=1)
        assert await bulk.ask([b"1", b"2", b"spoil", b"3", b"4"]) == ["1", "2", "spoil", "3", "4"]
        assert numbers[0] == numbers[1] == numbers[2] != numbers[3] == numbers[4]

    run(main())


def test_more_items_than_places_end_at_one_deadline_and_those_done_are_answered() -> None:
    async def answer(item: Request) -> Blob:
        await asyncio.sleep(0.4)
        return await echo(item)

    async def main() -> None:
        started = time.monotonic()
        found = await Bulk(answer, places=2).ask([b"x"] * 12, seconds=1.2)
        assert time.monotonic() - started < 1.2
        done = [each for each in found if each == "x"]
        assert 2 <= len(done) <= 4
        assert {each["error"] for each in found if each != "x"} == {"deadline_exceeded"}
        assert {each["status"] for each in found if each != "x"} == {504}

    run(main())


def test_a_short_list_does_not_wait_behind_a_long_one() -> None:
    async def answer(item: Request) -> Blob:
        await asyncio.sleep(0.02)
        return await echo(item)

    async def main() -> None:
        bulk = Bulk(answer, places=2)
        long = asyncio.create_task(bulk.ask([b"long"] * 40))
        await asyncio.sleep(0.03)
        started = time.monotonic()
        assert await bulk.ask([b"short"]) == ["short"]
        assert time.monotonic() - started < 0.2
        assert not long.done()
        await long

    run(main())


def test_the_item_that_does_not_fit_is_an_error_in_its_place() -> None:
    async def main() -> None:
        bulk = Bulk(echo, places=1, max_bytes=10)
        first, second, third = await bulk.ask([b"12345", b"123456789", b"1"])
        assert (first, third) == ("12345", "1")
        assert (second["error"], second["status"]) == ("response_too_large", 500)

    run(main())


@pytest.mark.parametrize(
    ("body", "content_type", "good"),
    [
        (b' {"a": 1}\n', "application/json; charset=utf-8", True),
        (b"3", "Application/JSON", True),
        (b"", "application/json", False),
        (b"hello", "application/json", False),
        (b"[1", "application/json", False),
        (b"\xff", "application/json", False),
        (b"3", "text/plain", False),
    ],
)
def test_an_answer_that_is_no_json_spoils_only_its_own_place(body: bytes, content_type: str, good: bool) -> None:
    async def answer(item: Request) -> Blob:
        if bytes(item.arena.memory.read(item.source[0])) == b"odd":
            item.content_type = content_type
            return body
        return await echo(item)

    async def main() -> None:
        first, odd, last = await Bulk(answer).ask([b"1", b"odd", b"2"])
        assert (first, last) == ("1", "2")
        assert good == (not isinstance(odd, dict) or "error" not in odd)

    run(main())


def test_an_input_that_cannot_be_read_costs_nothing() -> None:
    async def main() -> None:
        bad = FetchedInput(FetchedItem(failure=Failure(0, "BadRequest", "no photo", status=400)), [], [])
        bulk = Bulk(echo)
        found = await bulk.ask([b"1", bad])
        assert found[0] == "1"
        assert (found[1]["status"], found[1]["message"], found[1]["request_id"]) == (400, "no photo", "r-1")

    run(main())


def test_an_item_whose_worker_died_is_tried_once_more_and_alone() -> None:
    tries = list[tuple[bytes, bool]]()

    async def answer(item: Request) -> Blob:
        text = bytes(item.arena.memory.read(item.source[0]))
        tries.append((text, item.alone))
        if text == b"always" or (text == b"once" and not item.alone):
            raise WorkerDied
        return await echo(item)

    async def main() -> None:
        once, always, fine = await Bulk(answer).ask([b"once", b"always", b"fine"])
        assert (once, fine) == ("once", "fine")
        assert (always["error"], always["status"]) == ("unprocessable", 422)
        assert sorted(tries) == [
            (b"always", False), (b"always", True), (b"fine", False), (b"once", False), (b"once", True),
        ]  # fmt: skip

    run(main())


def test_when_nobody_waits_any_more_all_items_end() -> None:
    async def answer(item: Request) -> Blob:
        await asyncio.sleep(60)
        return b""

    async def main() -> None:
        bulk = Bulk(answer, places=2)
        asking = asyncio.create_task(bulk.ask([b"x"] * 5))
        await asyncio.sleep(0.02)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert asking.cancelled()
        assert sorted(bulk.ended) == [(f"r-{number}", "client_gone") for number in range(5)]

    run(main())
