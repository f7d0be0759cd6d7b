"""A closed loop against a running engine: so many requests in flight, each replaced as soon as it is answered.

Over one connection to the engine's socket, as the HTTP front end has it, each request with an arena of its own. Runs in the
planner's process, on its event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from multigpu_inference.arena import Arena
from multigpu_inference.errors import StartupError
from multigpu_inference.ipc import FrameStream
from multigpu_inference.messages import Answer, ArenaOpened
from multigpu_inference.planner.sample import Sample

# How long beyond a request's own time its answer is waited for.
_GRACE_S = 5.0
_CONNECT_S = 10.0


@dataclass(frozen=True)
class LoadResult:
    """What came of it.

    Attributes:
        seconds: How long was measured.
        latencies_ms: Of the answers of status 200 that came meanwhile, in order of size.
        errors: Other answers, by status.
        client_cpu_s: CPU time of this process meanwhile.
    """

    seconds: float
    latencies_ms: list[float]
    errors: dict[int, int]
    client_cpu_s: float

    @property
    def requests_per_second(self) -> float:
        """Right answers."""
        return len(self.latencies_ms) / self.seconds

    def latency_ms(self, share: float = 0.5) -> float:
        """The latency that this share of the requests did not exceed; 0 where none was answered."""
        return (
            self.latencies_ms[min(len(self.latencies_ms) - 1, int(share * len(self.latencies_ms)))]
            if self.latencies_ms
            else 0.0
        )


class ClosedLoop:
    """One connection and the requests on it."""

    def __init__(self, stream: FrameStream, sample: Sample, timeout_s: float) -> None:
        """Use `connect`."""
        self._stream, self._sample, self._timeout_s = stream, sample, timeout_s
        self._arenas: dict[int, Arena] = {}
        self._sent: dict[str, tuple[int, float]] = {}  # by request: its arena, and when it was sent
        self._number = 0
        self._stops = 0.0
        self._answered: list[tuple[float, float, int]] = []  # when, after how many milliseconds, with which status
        self._reading = asyncio.create_task(stream.deliver(self._take))

    @classmethod
    async def connect(cls, path: str, sample: Sample, timeout_s: float) -> ClosedLoop:
        """Connect to an engine's socket file."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(_CONNECT_S):
                await asyncio.get_running_loop().sock_connect(sock, path)
        except (TimeoutError, OSError) as error:
            sock.close()
            raise StartupError(f"the engine cannot be reached: {error}") from None
        return cls(FrameStream(sock), sample, timeout_s)

    async def run(
        self, in_flight: int, warmup_s: float, seconds: float, on_measuring: Callable[[bool], Any] = lambda begins: None
    ) -> LoadResult:
        """Keep requests in flight; returns when the last one has been answered.

        Args:
            in_flight: How many.
            warmup_s: How long before anything counts.
            seconds: How long is measured after that.
            on_measuring: Called when measuring begins (True) and ends (False).

        Raises:
            StartupError: where the engine hangs up, or leaves requests without an answer.
        """
        self._answered = []
        begins = time.monotonic() + warmup_s
        self._stops = begins + seconds
        for _ in range(in_flight):
            self._send(self._new_arena())
        await self._sleep_until(begins)
        on_measuring(True)
        cpu_s = time.process_time()
        await self._sleep_until(self._stops)
        cpu_s = time.process_time() - cpu_s
        on_measuring(False)
        ends = time.monotonic()
        await self._wait_for_the_last()
        answered = [(ms, status) for when, ms, status in self._answered if begins <= when < ends]
        errors = Counter(status for _, status in answered if status != 200)
        return LoadResult(ends - begins, sorted(ms for ms, status in answered if status == 200), dict(errors), cpu_s)

    async def close(self) -> None:
        """Hang up."""
        self._reading.cancel()
        await asyncio.wait([self._reading])
        self._stream.close()

    def _new_arena(self) -> int:
        self._number += 1
        arena = self._arenas[self._number] = Arena.create()
        self._stream.send(ArenaOpened(self._number), descriptor=arena.fileno())
        return self._number

    def _send(self, arena: int) -> None:
        self._number += 1
        name = f"plan-{self._number}"
        invocation = dataclasses.replace(self._sample.invocation(name, self._timeout_s), arena=arena)
        self._sent[name] = arena, invocation.arrived
        self._stream.send(invocation, self._arenas[arena].write([self._sample.body], 0))

    def _take(self, answer: Answer, blobs: list[Any]) -> None:
        arena, sent = self._sent.pop(answer.request_id)
        now = time.monotonic()
        self._answered.append((now, (now - sent) * 1e3, answer.status))
        if answer.arena_is_free:
            self._arenas[arena].release(answer.arena_used)
        else:
            del self._arenas[arena]
            arena = self._new_arena()
        if now < self._stops:
            self._send(arena)
        else:
            self._arenas.pop(arena)

    async def _sleep_until(self, moment: float) -> None:
        """Sleep, unless the engine hangs up meanwhile."""
        await asyncio.wait([self._reading], timeout=max(0.0, moment - time.monotonic()))
        if self._reading.done():
            raise StartupError("the engine ended while it was measured; --log FILE has what it said")

    async def _wait_for_the_last(self) -> None:
        deadline = time.monotonic() + self._timeout_s + _GRACE_S
        while self._sent:
            if time.monotonic() > deadline:
                raise StartupError(f"the engine left {len(self._sent)} requests without an answer")
            await self._sleep_until(time.monotonic() + 0.005)
