from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from multigpu_inference.fair_places import FairPlaces


def run(main: Coroutine[Any, Any, None]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(10):
            await main

    asyncio.run(in_time())


async def work(places: FairPlaces, owner: str, done: list[str]) -> None:
    async with places.place(owner):
        await asyncio.sleep(0)
        done.append(owner)


def test_owners_take_turns_however_many_places_each_wants() -> None:
    async def main() -> None:
        places, done = FairPlaces(1), list[str]()
        async with places.place("x"):
            tasks = [asyncio.create_task(work(places, owner, done)) for owner in "aaaaabbc"]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert "".join(done) == "abcabaaa"

    run(main())


@pytest.mark.parametrize("count", [1, 3])
def test_no_more_than_there_are_places(count: int) -> None:
    async def main() -> None:
        places, inside, most = FairPlaces(count), 0, 0

        async def visit(owner: int) -> None:
            nonlocal inside, most
            async with places.place(owner):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.001)
                inside -= 1

        await asyncio.gather(*(visit(number % 4) for number in range(20)))
        assert most == count

    run(main())


def test_who_gives_up_takes_nobodys_place() -> None:
    async def main() -> None:
        places, done = FairPlaces(1), list[str]()
        async with places.place("x"):
            gone = [asyncio.create_task(work(places, "a", done)) for _ in range(3)]
            last = asyncio.create_task(work(places, "b", done))
            await asyncio.sleep(0)
            for task in gone:
                task.cancel()
            await asyncio.gather(*gone, return_exceptions=True)
        await last
        await work(places, "c", done)
        assert done == ["b", "c"]

    run(main())


def test_a_place_that_was_given_in_the_moment_of_giving_up_goes_on() -> None:
    async def main() -> None:
        places, done = FairPlaces(1), list[str]()
        holder = places.place("x")
        await holder.__aenter__()
        first, second = (asyncio.create_task(work(places, owner, done)) for owner in "ab")
        await asyncio.sleep(0)
        await holder.__aexit__(None, None, None)  # the first has it now, and has not run yet
        first.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        assert done == ["b"]

    run(main())


def test_a_failure_gives_its_place_back() -> None:
    async def main() -> None:
        places = FairPlaces(1)
        for _ in range(3):
            with pytest.raises(ValueError, match="no"):
                async with places.place("a"):
                    raise ValueError("no")

    run(main())
