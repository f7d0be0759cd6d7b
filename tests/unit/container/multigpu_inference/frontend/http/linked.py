"""The HTTP front end's link to an engine that is a few lines in the same process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from multigpu_inference.frontend.http.engine_link import EngineLink
from multigpu_inference.ipc import Blob, FrameStream
from multigpu_inference.messages import Answer, Health, Invocation, Message, Watch


class FakeEngine:
    """Takes any number of connections, one after another.

    Attributes:
        asked: Invocations without an answer, in their order.
        most: How many have been so at a time.
        answers: Whether an invocation is answered as it comes.
        connections: How many there have been.
    """

    def __init__(self, path: Path, max_in_flight: int) -> None:
        self.asked: list[Invocation] = []
        self.answers = True
        self.most = 0
        self.connections = 0
        self._health = Health("healthy", 1, 1, max_in_flight)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.setblocking(False)
        self._listener.bind(str(path))
        self._listener.listen()
        self._stream: FrameStream | None = None

    async def serve(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                sock, _ = await asyncio.get_running_loop().sock_accept(self._listener)
                self._stream = FrameStream(sock)
                self.connections += 1
                with contextlib.suppress(EOFError, OSError):
                    await self._stream.deliver(self._take)
        finally:
            self._listener.close()
            if self._stream is not None:
                self._stream.close()

    def answer(self, invocation: Invocation, body: Blob = b"answer") -> None:
        """Answer one that has waited."""
        self.asked.remove(invocation)
        assert self._stream is not None
        self._stream.send(Answer(invocation.request_id, 200, "a/b"), [body])

    def _take(self, message: Message, blobs: list[Any]) -> None:
        assert self._stream is not None
        if isinstance(message, Watch):
            self._stream.send(self._health)
        elif isinstance(message, Invocation):
            self.asked.append(message)
            self.most = max(self.most, len(self.asked))
            if self.answers:
                asyncio.get_running_loop().call_later(0.001, self.answer, message)


@contextlib.asynccontextmanager
async def linked(folder: Path, max_in_flight: int = 2, grace_s: float = 0.02) -> AsyncIterator[tuple[EngineLink, FakeEngine]]:
    """A link that has reached its engine."""
    engine = FakeEngine(folder / "s", max_in_flight)
    link = EngineLink(str(folder / "s"), grace_s)
    tasks = [asyncio.create_task(engine.serve()), asyncio.create_task(link.run())]
    try:
        async with asyncio.timeout(20):
            await link.reached.wait()
            yield link, engine
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def invocation(request_id: str, seconds: float) -> Invocation:
    """One that has so many seconds."""
    now = time.monotonic()
    return Invocation(request_id, "a/b", "", {}, now, now + seconds)


async def turn_to(condition: Any) -> None:
    """Wait until something is so."""
    while not condition():
        await asyncio.sleep(0.001)
