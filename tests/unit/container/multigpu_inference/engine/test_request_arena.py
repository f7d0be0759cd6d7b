from __future__ import annotations

import asyncio

from multigpu_inference.arena import Arena
from multigpu_inference.engine.request_arena import RequestArena
from multigpu_inference.ipc import FrameStream, socket_pair
from multigpu_inference.messages import ArenaClosed, ArenaOpened


def test_each_worker_is_given_it_once_and_is_told_of_its_end() -> None:
    async def main() -> None:
        ours, theirs = (FrameStream(end) for end in socket_pair())
        arena = RequestArena(Arena.create())
        for _ in range(3):
            arena.open_for(ours)
        arena.close()
        arena.close()
        ours.send("last")
        opened, (descriptor,) = await theirs.receive()
        assert opened == ArenaOpened(arena.number)
        blobs = Arena(descriptor.take()).write([bytes(100_000)], 0)
        assert arena.memory.read(blobs[0]) == bytes(100_000)
        assert (await theirs.receive())[0] == ArenaClosed(arena.number)
        assert (await theirs.receive())[0] == "last"
        ours.close()
        theirs.close()

    asyncio.run(main())


def test_each_has_a_number_of_its_own_and_none_is_0() -> None:
    numbers = {RequestArena(Arena.create()).number for _ in range(5)}
    assert len(numbers) == 5
    assert 0 not in numbers


def test_a_worker_that_has_gone_need_not_be_told() -> None:
    async def main() -> None:
        ours, theirs = (FrameStream(end) for end in socket_pair())
        arena = RequestArena(Arena.create())
        arena.open_for(ours)
        theirs.close()
        arena.close()
        ours.close()

    asyncio.run(main())
