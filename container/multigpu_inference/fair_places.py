"""A number of places that several owners share by turns, however many each of them wants. Engine and HTTP front end use it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class FairPlaces:
    """Places, and who waits for one: the next free one goes to the next owner in turn, not to who asked for the most first."""

    def __init__(self, count: int) -> None:
        """All are free."""
        self._free = count
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()  # the next in turn first

    @asynccontextmanager
    async def place(self, owner: Hashable) -> AsyncIterator[None]:
        """Have a place for the length of the block."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(owner)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, owner: Hashable) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given a place in the same moment
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Give a place to the next who still waits; free it where nobody does."""
        while self._waiting:
            owner, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[owner] = turns  # behind the others
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
