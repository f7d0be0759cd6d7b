"""The arenas of the HTTP front end: one for each request that it has in flight, used again for the next.

The one used last goes first, because its pages are in the caches. Those that a whole minute had no use for go.
"""

from __future__ import annotations

from dataclasses import dataclass

from multigpu_inference.arena import Arena
from multigpu_inference.ipc import FrameStream
from multigpu_inference.messages import ArenaClosed, ArenaOpened


@dataclass(slots=True, eq=False)
class PooledArena:
    """An arena, and by which number the engine knows it.

    Attributes:
        memory: The memory file.
        pool: Where it comes from, and the number is known.
        number: By which messages name it; -1 where the engine has not heard of it.
    """

    memory: Arena
    pool: ArenaPool
    number: int = -1


class ArenaPool:
    """The arenas of one connection to the engine."""

    def __init__(self, engine: FrameStream) -> None:
        """Begin with none."""
        self._engine = engine
        self._free: list[PooledArena] = []
        self._lost = False
        self._unused = 0  # of the free ones, how many nobody has needed since the last look
        self._last_number = -1

    def take(self) -> PooledArena:
        """One for a request, which is the request's until it is given back."""
        arena = self._free.pop() if self._free else PooledArena(Arena.create(), self)
        self._unused = min(self._unused, len(self._free))
        return arena

    def open(self, arena: PooledArena) -> int:
        """Let the engine know an arena; its number. `OSError` where the engine has gone."""
        if arena.pool is not self:  # it was taken while another engine was connected
            arena.pool, arena.number = self, -1
        if arena.number < 0:
            self._last_number += 1
            self._engine.send(ArenaOpened(self._last_number), descriptor=arena.memory.fileno())
            arena.number = self._last_number
        return arena.number

    def give_back(self, arena: PooledArena, used: int) -> None:
        """It is free again, after a request that used so many bytes of it."""
        if not self._lost:
            arena.memory.release(used)
            self._free.append(arena)

    def lose(self) -> None:
        """The engine has gone: nothing is kept for it any more."""
        self._lost = True
        self._free.clear()

    def trim(self) -> None:
        """Let go of those that nobody has needed since the last time."""
        idle, self._free = self._free[: self._unused], self._free[self._unused :]
        self._unused = len(self._free)
        for arena in idle:
            if arena.number >= 0:
                self._engine.send(ArenaClosed(arena.number))
