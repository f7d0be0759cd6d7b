from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from multigpu_inference.arena import Arena
from multigpu_inference.engine.poison_list import PoisonList
from multigpu_inference.ipc import Buffer, Slice

JPEG = "image/jpeg"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def knows(known: PoisonList, *source: bytes, content_type: str = JPEG) -> bool:
    return await known.knows(content_type, source, lambda: source)


async def remember(known: PoisonList, *source: bytes) -> None:
    await known.remember(JPEG, source, lambda: source)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def never() -> Sequence[Buffer]:
    raise AssertionError("its bytes were read")


def test_what_has_killed_is_known_again_and_nothing_else() -> None:
    async def main() -> None:
        known = PoisonList()
        assert not await knows(known, b"killer")
        await remember(known, b"killer")
        assert await knows(known, b"killer")
        assert not await knows(known, b"killes")
        assert not await knows(known, b"kille")
        assert not await knows(known, b"killer", content_type="image/png")

    run(main())


def test_where_one_part_ends_and_the_next_begins_is_content_too() -> None:
    async def main() -> None:
        known = PoisonList()
        await remember(known, b"ab", b"c")
        assert await knows(known, b"ab", b"c")
        assert not await knows(known, b"a", b"bc")

    run(main())


def test_only_what_is_of_the_same_type_and_length_is_read() -> None:
    async def main() -> None:
        known = PoisonList()
        assert not await known.knows(JPEG, [b"1234"], never)
        await remember(known, b"123")
        assert not await known.knows(JPEG, [b"1234"], never)
        assert not await known.knows("image/png", [b"123"], never)
        with pytest.raises(AssertionError):
            await known.knows(JPEG, [b"124"], never)

    run(main())


def test_what_goes_with_it_is_content_too() -> None:
    async def main() -> None:
        known = PoisonList()
        await known.remember(JPEG, [b"photo"], lambda: [b"photo", b"crash=1"])
        assert await known.knows(JPEG, [b"photo"], lambda: [b"photo", b"crash=1"])
        assert not await known.knows(JPEG, [b"photo"], lambda: [b"photo", b"crash=0"])
        assert not await knows(known, b"photo")

    run(main())


def test_it_is_forgotten_after_its_age() -> None:
    async def main() -> None:
        clock = Clock()
        known = PoisonList(max_age_s=3600, clock=clock)
        await remember(known, b"early")
        clock.now += 3000
        await remember(known, b"late!")
        clock.now += 599
        assert await knows(known, b"early")
        clock.now += 2
        assert not await knows(known, b"early")
        assert await knows(known, b"late!")
        clock.now += 3000
        assert not await known.knows(JPEG, [b"late!"], never)

    run(main())


def test_who_kills_again_is_remembered_anew() -> None:
    async def main() -> None:
        clock = Clock()
        known = PoisonList(max_age_s=3600, clock=clock)
        await remember(known, b"again")
        clock.now += 3000
        await remember(known, b"again")
        clock.now += 3000
        assert await knows(known, b"again")
        clock.now += 601
        assert not await known.knows(JPEG, [b"again"], never)

    run(main())


def test_the_oldest_goes_where_there_are_too_many() -> None:
    async def main() -> None:
        known = PoisonList(max_entries=2)
        for killer in (b"one", b"two", b"three"):
            await remember(known, killer)
        assert [await knows(known, killer) for killer in (b"one", b"two", b"three")] == [False, True, True]

    run(main())


def test_a_large_one_in_an_arena_is_known_too() -> None:
    async def main() -> None:
        arena = Arena.create()
        (piece,) = arena.write([bytes(300_000) + b"x"], 0)
        assert isinstance(piece, Slice)
        known = PoisonList()
        await remember(known, bytes(300_000) + b"x")
        assert await known.knows(JPEG, [piece], lambda: [arena.array(piece)])

    run(main())
