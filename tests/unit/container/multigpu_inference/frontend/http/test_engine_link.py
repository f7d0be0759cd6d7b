from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from multigpu_inference.arena import Arena
from multigpu_inference.errors import DeadlineExceeded, Exhausted, Overloaded
from multigpu_inference.ipc import Slice
from unit.container.multigpu_inference.frontend.http.linked import invocation, linked, turn_to


def test_a_request_that_is_never_answered_holds_no_place_for_good(tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(tmp_path, max_in_flight=1) as (link, engine):
            engine.answers = False
            asking = asyncio.create_task(link.invoke(invocation("lost", 0.01), b"", link.arena()))
            await turn_to(lambda: engine.asked)
            assert isinstance(link.refusal(), Overloaded)
            with pytest.raises(DeadlineExceeded):
                await asking
            assert link.refusal() is None
            engine.answers = True
            answer, body = await link.invoke(invocation("next", 10), b"", link.arena())
            assert (answer.status, body) == (200, b"answer")

    asyncio.run(main())


def test_an_answer_that_comes_much_too_late_brings_its_arena_back_and_harms_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(tmp_path) as (link, engine):
            engine.answers = False
            arena = link.arena()
            with pytest.raises(DeadlineExceeded):
                await link.invoke(invocation("late", 0.0), b"", arena)
            assert link.arena() is not arena
            engine.answer(engine.asked[0])
            engine.answers = True
            assert (await link.invoke(invocation("next", 10), b"", link.arena()))[0].status == 200
            assert arena in [link.arena() for _ in range(3)]
            assert engine.connections == 1

    asyncio.run(main())


def test_an_answer_that_cannot_be_mapped_costs_its_own_request_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptor(*_: Any) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    async def main() -> None:
        async with linked(tmp_path) as (link, engine):
            engine.answers = False
            one = asyncio.create_task(link.invoke(invocation("large", 10), b"", link.arena()))
            other = asyncio.create_task(link.invoke(invocation("small", 10), b"", link.arena()))
            await turn_to(lambda: len(engine.asked) == 2)
            monkeypatch.setattr(Arena, "read", no_descriptor)
            engine.answer(engine.asked[0], body=Slice(0, 100_000))
            with pytest.raises(Exhausted):
                await one
            engine.answer(engine.asked[0])
            assert (await other)[1] == b"answer"

    asyncio.run(main())


def test_bodies_on_their_way_keep_out_no_part_that_is_here(tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(tmp_path) as (link, _):
            arenas = [link.arena() for _ in range(64)]
            assert isinstance(link.refusal(), Overloaded)
            assert link.refusal(received=True) is None
            for arena in arenas:
                link.forget(arena)
            assert link.refusal() is None

    asyncio.run(main())
