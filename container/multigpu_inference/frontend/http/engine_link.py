"""The HTTP front end's one connection to the engine: requests, their answers, and how the engine is.

    app ──Invocation, Cancellation, Refusal, Scrape──► engine
        ◄──Answer, Health, Exposition───────────────

All requests share it, each with an arena of its own until its answer. It is made anew whenever it ends; until then
requests are refused. `/ping` asks nobody: the engine tells its health at every change, and is taken for lost when it does
not tell it any more.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import socket
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from multigpu_inference import log
from multigpu_inference.errors import ClientGone, DeadlineExceeded, Draining, Exhausted, Overloaded, ServingError, Unavailable
from multigpu_inference.frontend.http.arena_pool import ArenaPool, PooledArena
from multigpu_inference.ipc import Blob, FrameStream
from multigpu_inference.messages import (
    HEARTBEAT_S,
    Answer,
    Cancellation,
    Exposition,
    Health,
    Invocation,
    Message,
    Refusal,
    Scrape,
    Watch,
)

_CONNECT_AGAIN_S = 0.05
# How many of the engine's words on its health may fail to come: with more work than cores, one comes late now and then.
_SILENT_AFTER_S = 5 * HEARTBEAT_S
_TRIM_EVERY_S = 60.0
_TELL_REFUSALS_AFTER_S = 0.25
_SCRAPE_LIMIT_S = 5.0
# Bodies on their way in hold memory, and clients that send slowly hold it long: more may come in than the engine holds, so
# that a few slow ones do not keep all others out.
_RECEIVING_AT_LEAST = 64


@dataclasses.dataclass(slots=True, eq=False)
class _Pending:
    """A request without an answer. Its caller may have given up on it; its arena comes back all the same."""

    answer: asyncio.Future[tuple[Answer, bytes | bytearray]]
    arena: PooledArena
    give_up_at: float  # monotonic seconds


class EngineLink:
    """Asks the engine, for any number of requests at a time.

    Attributes:
        reached: Set once the engine has said how it is, for the first time.
    """

    def __init__(self, path: str, grace_s: float) -> None:
        """Nothing is connected yet.

        Args:
            path: The engine's socket file.
            grace_s: How long after its deadline an answer is still waited for, so that the engine's own 504 comes first.
        """
        self._path = path
        self._grace_s = grace_s
        self._stream: FrameStream | None = None
        self._arenas: ArenaPool | None = None
        self._pending: dict[str, _Pending] = {}
        self._late: dict[str, _Pending] = {}  # given up; their arenas come back when they are answered after all
        self._receiving = 0  # requests whose bodies are on their way in
        self._refusals = Counter[tuple[int, str]]()  # of which the engine has not been told
        self._scrapes: dict[int, asyncio.Future[tuple[str, bytes]]] = {}
        self._numbers = itertools.count()
        self._health: Health | None = None
        self._heard = 0.0
        self.reached = asyncio.Event()

    @property
    def health(self) -> Health | None:
        """How the engine is; None while it starts, when it has gone, and when it has not been heard of for too long."""
        return self._health if time.monotonic() - self._heard < _SILENT_AFTER_S else None

    @property
    def draining(self) -> bool:
        """Whether the engine takes nothing new any more, or has gone."""
        return self.reached.is_set() and (self._health is None or self._health.state == "draining")

    @property
    def max_in_bulk(self) -> int:
        """How many parts of one bulk request may be in flight: half of what the engine holds, so that others come in too."""
        return max(1, self._health.max_in_flight // 2) if self._health is not None else 1

    def refusal(self, *, received: bool = False) -> ServingError | None:
        """Why a request would be refused now: known before its body is read, so that overload costs little.

        Args:
            received: Whether its body is here already, as that of a part of a bulk request.
        """
        if self._stream is None or self._health is None:
            return Unavailable("the endpoint is starting" if not self.reached.is_set() else None)
        if self._health.state == "draining":
            return Draining()
        most = self._health.max_in_flight
        full = len(self._pending) >= most or (not received and self._receiving >= max(2 * most, _RECEIVING_AT_LEAST))
        return Overloaded(retry_after_s=self._health.retry_after_s) if full else None

    def arena(self) -> PooledArena:
        """An arena for a request's body, to be handed to `invoke` or `forget`."""
        arena = self._pool().take()
        self._receiving += 1
        return arena

    def forget(self, arena: PooledArena) -> None:
        """A request has ended before it was handed on."""
        self._receiving -= 1
        arena.pool.give_back(arena, arena.memory.size())

    async def run(self) -> None:
        """Be connected, for ever; connect anew whenever the connection ends."""
        sweeping = asyncio.create_task(self._sweep())
        try:
            while True:
                try:
                    await self._connect()
                    assert self._stream is not None
                    self._stream.send(Watch())
                    await self._stream.deliver(self._take)
                except (EOFError, OSError):
                    pass
                except Exception as error:  # an answer that cannot be understood: nothing behind it can be trusted
                    log.exception("engine_not_understood", error)
                finally:
                    self._lose()
                await asyncio.sleep(_CONNECT_AGAIN_S)
        finally:
            sweeping.cancel()

    async def invoke(self, invocation: Invocation, body: Blob, arena: PooledArena) -> tuple[Answer, bytes | bytearray]:
        """Hand over one request and wait for its answer, of whatever status.

        Args:
            invocation: The request.
            body: Inline, or where it stands in the arena.
            arena: Its own from `arena()`; not the caller's any more.

        Raises:
            DeadlineExceeded: no answer in time, not even the engine's 504.
            ClientGone: after `cancel`.
            Unavailable: the engine cannot be reached, or ended while it had the request.
        """
        answer: asyncio.Future[tuple[Answer, bytes | bytearray]] = asyncio.get_running_loop().create_future()
        self._receiving -= 1
        pool, stream = self._pool(), self._stream
        assert stream is not None
        try:
            invocation.arena = pool.open(arena)
            self._pending[invocation.request_id] = _Pending(answer, arena, invocation.deadline + self._grace_s)
            stream.send(invocation, [body])
        except OSError:
            self._pending.pop(invocation.request_id, None)
            raise Unavailable from None
        try:
            return await answer
        except asyncio.CancelledError:
            self._tell(Cancellation(invocation.request_id))
            raise
        finally:
            del answer  # its error's traceback leads to this frame: together they would keep the arena until some collection

    def cancel(self, request_id: str) -> None:
        """The client of a request has gone: nobody waits for its answer any more, and the engine need not go on."""
        pending = self._pending.get(request_id)
        if pending is None or pending.answer.done() or self._stream is None:
            return
        pending.answer.set_exception(ClientGone())
        self._tell(Cancellation(request_id))

    def refused(self, error: ServingError) -> None:
        """Let the engine count a request that was refused here; soon, with others, as waking it costs more than a refusal."""
        self._refusals[error.status, error.code] += 1
        if self._refusals.total() == 1:
            asyncio.get_running_loop().call_later(_TELL_REFUSALS_AFTER_S, self._tell_refusals)

    def _tell_refusals(self) -> None:
        refusals, self._refusals = self._refusals, Counter()
        for (status, code), count in refusals.items():
            self._tell(Refusal(status, code, count))

    async def scrape(self, *, for_people: bool) -> tuple[str, bytes]:
        """The engine's metrics, content type and text; `Unavailable` where it does not answer.

        Args:
            for_people: Whether as JSON, with advice; else in Prometheus' text format.
        """
        number = next(self._numbers)
        text: asyncio.Future[tuple[str, bytes]] = asyncio.get_running_loop().create_future()
        self._scrapes[number] = text
        try:
            self._tell_refusals()
            self._tell(Scrape(number, for_people))
            async with asyncio.timeout(_SCRAPE_LIMIT_S if self._stream is not None else 0):
                return await text
        except TimeoutError:
            raise Unavailable from None
        finally:
            del self._scrapes[number]

    def _pool(self) -> ArenaPool:
        if self._arenas is None:
            raise Unavailable
        return self._arenas

    def _tell(self, message: Message) -> None:
        if self._stream is not None:
            try:
                self._stream.send(message)
            except OSError:
                return  # it has gone, which whoever waits for it is told elsewhere

    async def _connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self._path)
        except BaseException:
            sock.close()
            raise
        self._stream = FrameStream(sock)
        self._arenas = ArenaPool(self._stream)

    def _lose(self) -> None:
        """The engine has gone: whoever waits is told, and arenas that it knew are of no further use."""
        if self._stream is not None:
            self._stream.close()
        if self._arenas is not None:
            self._arenas.lose()
        self._stream = self._arenas = self._health = None
        pending, self._pending, self._late = self._pending, {}, {}
        waiting: list[asyncio.Future[Any]] = [*(request.answer for request in pending.values()), *self._scrapes.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(Unavailable())

    def _take(self, message: Message, blobs: list[Any]) -> None:
        if isinstance(message, Answer):
            self._answered(message, blobs[0])
        elif isinstance(message, Health):
            self._health, self._heard = message, time.monotonic()
            self.reached.set()
        elif isinstance(message, Exposition) and message.number in self._scrapes:
            text = self._scrapes[message.number]
            if not text.done():
                text.set_result((message.content_type, bytes(blobs[0])))

    def _answered(self, answer: Answer, body: Blob) -> None:
        request_id = answer.request_id
        pending = self._late.pop(request_id) if request_id in self._late else self._pending.pop(request_id)
        if not pending.answer.done():
            try:
                pending.answer.set_result((answer, body if isinstance(body, bytearray) else pending.arena.memory.read(body)))
            except OSError:  # no descriptor for its mapping
                pending.answer.set_exception(Exhausted())
        if answer.arena_is_free:
            pending.arena.pool.give_back(pending.arena, answer.arena_used)

    async def _sweep(self) -> None:
        """Give up on what is over its time by far, and on arenas that nobody needs."""
        trimmed = time.monotonic()
        while True:
            await asyncio.sleep(self._grace_s / 4)
            now = time.monotonic()
            self._give_up_on_the_late(now)
            if now - trimmed > _TRIM_EVERY_S and self._arenas is not None:
                trimmed = now
                with suppress(OSError):  # the engine has gone, and with it the pool
                    self._arenas.trim()

    def _give_up_on_the_late(self, now: float) -> None:
        """A function of its own, so that nothing keeps the last request, and its arena with it, until the next look."""
        for request_id in [each for each, request in self._pending.items() if now > request.give_up_at]:
            request = self._late[request_id] = self._pending.pop(request_id)
            if not request.answer.done():
                request.answer.set_exception(DeadlineExceeded())
