"""The arena of a request as the engine keeps it: who has been given it, and whether it may be used for another request.

The engine numbers arenas for its workers, because the front end's numbers begin anew with each connection. It reads no bytes
of a request, but for those that it divides (`bulk`): it passes on where they are.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref

from multigpu_inference.arena import Arena
from multigpu_inference.ipc import FrameStream
from multigpu_inference.messages import ArenaClosed, ArenaOpened

_numbers = itertools.count(1)  # 0 is no arena


class RequestArena:
    """One arena, from the front end or of the engine's own.

    Attributes:
        number: By which workers know it.
        memory: The memory file.
        spoiled: Whether a worker may still write to it, or refers to what is in it, beyond its request: it is not used again.
    """

    def __init__(self, memory: Arena) -> None:
        """Keep a memory file that no worker has yet."""
        self.number = next(_numbers)
        self.memory = memory
        self.spoiled = False
        self._holders = weakref.WeakSet[FrameStream]()

    def open_for(self, worker: FrameStream) -> None:
        """Give it to a worker that does not have it yet; `OSError` where that has gone."""
        if worker not in self._holders:
            worker.send(ArenaOpened(self.number), descriptor=self.memory.fileno())
            self._holders.add(worker)

    def close(self) -> None:
        """Take it back from all who have it. Its memory goes when they have heard of it."""
        for worker in list(self._holders):
            with contextlib.suppress(OSError):
                worker.send(ArenaClosed(self.number))
        self._holders.clear()
