"""The engine's side of its socket: the front end's connections, their requests and arenas.

    front-end worker ── one connection each, one request at a time ──┐
    HTTP front end   ── one connection, any number at a time ────────┴─► Engine.answer

A front-end worker only asks; the HTTP front end is also told how the engine is, and may take a request back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multigpu_inference import log
from multigpu_inference.arena import Arena
from multigpu_inference.config import MAX_FRONT_END_WORKERS
from multigpu_inference.engine.engine import Engine
from multigpu_inference.engine.request_arena import RequestArena
from multigpu_inference.errors import ClientGone, Exhausted
from multigpu_inference.ipc import Blob, FrameStream
from multigpu_inference.messages import (
    HEARTBEAT_S,
    Answer,
    ArenaClosed,
    ArenaOpened,
    Cancellation,
    Exposition,
    Invocation,
    Message,
    Refusal,
    Scrape,
    Watch,
)

# All front-end workers may connect at once; a connection beyond the backlog fails.
_BACKLOG = 2 * MAX_FRONT_END_WORKERS
_ACCEPT_AGAIN_S = 0.1
_LOOK_EVERY_S = 0.05


class Connections:
    """Takes connections and serves each until it ends."""

    def __init__(self, engine: Engine, path: Path) -> None:
        """Listen on a socket file and answer with `engine`."""
        self._engine = engine
        self._open: set[asyncio.Task[None]] = set()
        self._streams = weakref.WeakSet[FrameStream]()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.setblocking(False)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(_BACKLOG)
        self._accepting = asyncio.create_task(self._accept())

    async def flush(self, limit_s: float) -> None:
        """Wait until the last answers have been sent, for a time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                for stream in list(self._streams):
                    await stream.flush()

    async def close(self) -> None:
        """Take no new connections and end all that there are."""
        ending = [self._accepting, *self._open]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._listener)
            except OSError as error:  # out of descriptors, for one: who waits is taken later
                log.exception("connection_not_accepted", error)
                await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            if _user_of(sock) != os.getuid():
                log.event("connection_refused", because="it is another user's")
                sock.close()
                continue
            stream = FrameStream(sock)
            self._streams.add(stream)
            connection = asyncio.create_task(_Connection(self._engine, stream).serve())
            self._open.add(connection)
            connection.add_done_callback(self._open.discard)


def _user_of(sock: socket.socket) -> int:
    """Whose process is at the other end."""
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)


class _Connection:
    """One connection: its requests and its arenas end when it does."""

    def __init__(self, engine: Engine, stream: FrameStream) -> None:
        self._engine = engine
        self._stream = stream
        self._requests: dict[str, asyncio.Task[None]] = {}
        self._arenas: dict[int, RequestArena] = {}
        self._telling: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Take what comes until the other side has gone, then give up on what it waited for."""
        try:
            await self._stream.deliver(self._take)
        except (EOFError, OSError):
            pass
        except Exception as error:  # nothing that follows can be trusted
            log.exception("front_end_not_understood", error)
        finally:
            ending = [*self._requests.values(), *([self._telling] if self._telling else [])]
            for task in ending:
                task.cancel()
            self._stream.close()
            await asyncio.gather(*ending, return_exceptions=True)
            for arena in self._arenas.values():
                arena.close()

    def _take(self, message: Message, blobs: list[Any]) -> None:
        match message:
            case Invocation():
                request = asyncio.create_task(self._answer(message, blobs[0]), name=message.request_id)
                self._requests[message.request_id] = request
                request.add_done_callback(self._answered)
            case ArenaOpened() if blobs:  # else there was no descriptor left for it here: see `_answer`
                self._arenas[message.number] = RequestArena(Arena(blobs[0].take()))
            case ArenaClosed() if message.number in self._arenas:
                self._arenas.pop(message.number).close()
            case Cancellation() if message.request_id in self._requests:
                self._requests[message.request_id].cancel()
            case Refusal():
                self._engine.refused(message)
            case Scrape():
                content_type, text = self._engine.exposition(for_people=message.for_people)
                with contextlib.suppress(OSError):  # whoever waits for it gives up by itself
                    self._stream.send(Exposition(message.number, content_type), [text])
            case Watch():
                self._telling = asyncio.create_task(self._tell_health())

    async def _answer(self, invocation: Invocation, body: Blob) -> None:
        arena = self._arenas.get(invocation.arena)
        if arena is None:
            error = Exhausted()
            self._engine.refused(Refusal(error.status, error.code))
            self._refuse(Answer(invocation.request_id, error.status, "", arena_is_free=False))
            return
        answer, answer_body = await self._engine.answer(invocation, body, arena)
        if not answer.arena_is_free:
            self._arenas.pop(invocation.arena).close()
        try:
            self._stream.send(answer, [answer_body])
        except ConnectionError:  # it has gone; that its request was given up stands in the log
            pass
        except OSError:
            self._refuse(answer)

    def _answered(self, request: asyncio.Task[None]) -> None:
        request_id = request.get_name()
        del self._requests[request_id]
        if request.cancelled():  # before it had begun: nothing has touched its arena
            gone = ClientGone()
            self._send(Answer(request_id, gone.status, "application/json"), [gone.body(request_id)])

    def _refuse(self, answer: Answer) -> None:
        """Say that there is no memory or descriptor for an answer, in its place.

        A request whose answer never comes would have its place in the front end for good: where not even this can be sent, the
        connection ends, and the front end begins anew.
        """
        error, request_id = Exhausted(), answer.request_id
        log.event("answer_not_sent", request_id=request_id, status=error.status, error=error.code)
        of_arena = (answer.arena_is_free, answer.arena_used)
        refusal = Answer(request_id, error.status, "application/json", {}, error.retry_after_s, *of_arena)
        self._send(refusal, [error.body(request_id)])

    async def _tell_health(self) -> None:
        """Say how the engine is: at once, at every change, and as often as a heartbeat."""
        told, at = None, 0.0
        while True:
            health, now = self._engine.health(), asyncio.get_running_loop().time()
            if health != told or now - at >= HEARTBEAT_S:
                self._send(health)
                told, at = health, now
            await asyncio.sleep(_LOOK_EVERY_S)

    def _send(self, message: Message, blobs: Sequence[Blob] = ()) -> None:
        """Send what the other side waits for; where that cannot be, it is to see the end of the connection."""
        try:
            self._stream.send(message, blobs)
        except OSError:
            self._stream.close()
