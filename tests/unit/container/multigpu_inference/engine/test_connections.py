"""Connections to an engine that answers at once, where this process runs out of what sending takes."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from multigpu_inference.arena import Arena
from multigpu_inference.engine.connections import _Connection
from multigpu_inference.engine.engine import Engine
from multigpu_inference.engine.request_arena import RequestArena
from multigpu_inference.ipc import Blob, FrameStream, socket_pair
from multigpu_inference.messages import Answer, ArenaClosed, ArenaOpened, Invocation, Refusal, Scrape
from unit.container.multigpu_inference.test_ipc import no_room_for_descriptors

LARGE = bytes(200_000)  # does not fit a packet


class EngineStub:
    """Answers with one body, and keeps what it is told was refused."""

    def __init__(self) -> None:
        self.body: Blob = b"answer"
        self.refusals: list[Refusal] = []

    async def answer(self, invocation: Invocation, body: Blob, arena: RequestArena) -> tuple[Answer, Blob]:
        return Answer(invocation.request_id, 200, "a/b", arena_used=7), self.body

    def refused(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)

    def exposition(self, *, for_people: bool) -> tuple[str, bytes]:
        return "text/plain", LARGE


def with_connection(use: Callable[[FrameStream, EngineStub], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        ours, theirs = (FrameStream(end) for end in socket_pair())
        engine = EngineStub()
        serving = asyncio.create_task(_Connection(cast(Engine, engine), theirs).serve())
        try:
            async with asyncio.timeout(10):
                await use(ours, engine)
        finally:
            ours.close()
            await serving

    asyncio.run(run())


def invocation(request_id: str, arena: int) -> Invocation:
    made = Invocation(request_id, "a/b", "", {}, 0.0, 1e9)
    made.arena = arena
    return made


def open_arena(stream: FrameStream, number: int) -> None:
    arena = Arena.create()
    stream.send(ArenaOpened(number), descriptor=arena.fileno())


async def ask(stream: FrameStream, request_id: str, arena: int) -> tuple[Answer, bytes]:
    stream.send(invocation(request_id, arena), [b"body"])
    answer, (body,) = await stream.receive()
    assert answer.request_id == request_id
    return answer, bytes(body)


def no_file(*_: Any) -> int:
    raise OSError(errno.EMFILE, "Too many open files")


def test_an_answer_that_cannot_be_sent_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(stream: FrameStream, engine: EngineStub) -> None:
        open_arena(stream, 3)
        engine.body = LARGE
        with monkeypatch.context() as patched:
            patched.setattr(os, "memfd_create", no_file)
            answer, body = await ask(stream, "r-1", 3)
        assert (answer.status, answer.retry_after_s, answer.arena_is_free, answer.arena_used) == (503, 5, True, 7)
        assert b'"exhausted"' in body
        assert (await ask(stream, "r-2", 3))[1] == LARGE

    with_connection(use)


def test_where_not_even_that_can_be_sent_the_connection_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(stream: FrameStream, engine: EngineStub) -> None:
        open_arena(stream, 3)
        assert (await ask(stream, "r-1", 3))[0].status == 200
        stream.send(invocation("r-2", 3), [b"body"])
        monkeypatch.setattr("multigpu_inference.ipc.Packet.send", no_file)
        with pytest.raises(EOFError):
            await stream.receive()

    with_connection(use)


def test_an_arena_that_there_is_no_descriptor_for_costs_its_own_request_alone() -> None:
    async def use(stream: FrameStream, engine: EngineStub) -> None:
        open_arena(stream, 0)
        assert (await ask(stream, "r-1", 0))[0].status == 200
        open_arena(stream, 1)
        stream.send(invocation("r-2", 1), [b"body"])
        with no_room_for_descriptors():
            answer, (body,) = await stream.receive()
        assert (answer.request_id, answer.status, answer.arena_is_free) == ("r-2", 503, False)
        assert b'"exhausted"' in bytes(body)
        assert engine.refusals == [Refusal(503, "exhausted")]
        stream.send(ArenaClosed(1))
        assert (await ask(stream, "r-3", 0))[0].status == 200
        open_arena(stream, 2)
        assert (await ask(stream, "r-4", 2))[0].status == 200

    with_connection(use)


def test_metrics_that_cannot_be_sent_cost_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(stream: FrameStream, engine: EngineStub) -> None:
        open_arena(stream, 0)
        monkeypatch.setattr(os, "memfd_create", no_file)
        stream.send(Scrape(1, False))
        assert (await ask(stream, "r-1", 0))[0].status == 200

    with_connection(use)
