"""A process that the supervisor has started and that is up, watched until it ends or does nothing any more.

engine, HTTP front end   say once a second that their loop is alive
multi-model-server       is asked (`front_end_ping`); its launcher watches what it is made of
"""

from __future__ import annotations

import asyncio
import contextlib

from multigpu_inference import log, process
from multigpu_inference.front_end_ping import FrontEndPing
from multigpu_inference.ipc import FrameStream
from multigpu_inference.liveness import PINGED_TICKS, SILENT_TICKS, TICK_S, Liveness
from multigpu_inference.messages import EngineReached
from multigpu_inference.proc_stat import read_stat

_ASK_EVERY_S = 1.0


class WatchedChild:
    """One of them.

    Attributes:
        name: What it is.
        ended: Done when it has ended, or is to be given up.
        reached: Set when it can take requests as far as the engine.
    """

    def __init__(
        self,
        name: str,
        child: asyncio.subprocess.Process,
        *,
        stream: FrameStream | None = None,
        ping: FrontEndPing | None = None,
        reached: bool = True,
    ) -> None:
        """Watch a process from now on.

        Args:
            name: What it is.
            child: The process.
            stream: What it says, where it speaks.
            ping: Asks it, where it does not.
            reached: Whether it can take requests as it is; else it says when.
        """
        self.name = name
        self._child = child
        self._stream = stream
        self._ping = ping
        self._heard = True
        self._given_up: str | None = None
        self.reached = asyncio.Event()
        if reached:
            self.reached.set()
        self.ended = asyncio.create_task(self._watch(), name=f"watch {name}")

    def tell(self) -> int | None:
        """Say that it has ended; its exit code, None where it was given up: then it is ended here."""
        if self._child.returncode is not None:
            log.event("process_ended", process=self.name, exit_code=self._child.returncode)
        else:
            log.event("process_hung", process=self.name, because=self._given_up)
            process.kill_group(self._child.pid)  # to ask it to end would be of no use
        return self._child.returncode

    async def _watch(self) -> None:
        ended = asyncio.create_task(self._child.wait())
        hearing = asyncio.create_task(self._listen() if self._stream is not None else self._ask())
        liveness = Liveness(PINGED_TICKS if self._stream is None else SILENT_TICKS)
        try:
            while not ended.done():
                await asyncio.wait([ended], timeout=TICK_S)
                heard, self._heard = self._heard, False
                self._given_up = liveness.tick(read_stat(self._child.pid), heard=heard)
                if self._given_up is not None:
                    return
        finally:
            for task in (ended, hearing):
                task.cancel()
            await asyncio.gather(ended, hearing, return_exceptions=True)
            if self._stream is not None:
                self._stream.close()
            if self._ping is not None:
                self._ping.close()

    async def _listen(self) -> None:
        assert self._stream is not None
        with contextlib.suppress(EOFError, OSError):  # it ends; or else it is not heard of any more
            while True:
                message, _ = await self._stream.receive()
                self._heard = True
                if isinstance(message, EngineReached):
                    self.reached.set()

    async def _ask(self) -> None:
        while True:
            self._heard |= self._ping is None or await self._ping.answers()
            await asyncio.sleep(_ASK_EVERY_S)
