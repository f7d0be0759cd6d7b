"""The container's own engine, started by the planner with settings of its choice, and what it serves.

The engine is the real one with all its processes, reached at its socket; there is no HTTP front end before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from multigpu_inference import process
from multigpu_inference.child_process import Command, first_message, spawn
from multigpu_inference.config import Settings
from multigpu_inference.errors import StartupError
from multigpu_inference.planner.cpu_use import cpu_seconds, machine_cpu_seconds
from multigpu_inference.planner.load import ClosedLoop, LoadResult
from multigpu_inference.planner.sample import Sample
from multigpu_inference.run_folder import ENGINE_SOCKET, run_folder

_STOP_S = 8.0
# A lone request is measured for so long at least, and for so many of them.
_LONE_S, _LONE_REQUESTS = 1.5, 5
# Times around: queues fill before they are measured.
_WARMUP_ROUNDS = 3
_LONGEST_ROUND_S = 10.0


@dataclass(frozen=True)
class Measured:
    """What an engine served.

    Attributes:
        lone_ms: Median latency with one request in flight.
        saturated: The closed loop with as many in flight as it takes.
        in_flight: How many that were.
        cpu_ms: CPU time for each request of that loop, by role: `client`, `engine`, `pool`, `replica`.
        foreign_cores: Cores that were busy meanwhile with something else on this machine.
    """

    lone_ms: float
    saturated: LoadResult
    in_flight: int
    cpu_ms: Mapping[str, float]
    foreign_cores: float

    @property
    def requests_per_second(self) -> float:
        """Right answers."""
        return self.saturated.requests_per_second


@asynccontextmanager
async def started_engine(environ: Mapping[str, str], settings: Settings) -> AsyncIterator[tuple[int, Path]]:
    """Start an engine and wait until every replica is warm: its process and its socket. It is ended with the block.

    Args:
        environ: Its variables, beside those of this process.
        settings: What it reads from them.

    Raises:
        StartupError: where it does not start.
    """
    with run_folder() as folder:
        command = Command("engine", "multigpu_inference.engine.server", (str(folder),), environ, credentials=True)
        child, stream = await spawn(command)
        try:
            deadline = asyncio.get_running_loop().time() + 2 * settings.engine.startup_timeout_s + 10
            await first_message(command, child, stream, deadline)
            yield child.pid, folder / ENGINE_SOCKET
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    # Not by `send_signal`: it collects a child that has just ended, whose exit code asyncio then misses.
                    os.kill(child.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    await child.wait()
            stream.close()
            process.kill_group(child.pid)
            await child.wait()


async def measure_engine(
    environ: Mapping[str, str], settings: Settings, sample: Sample, in_flight: int, seconds: float
) -> Measured:
    """Start an engine, and measure it with one request in flight and with many.

    Raises:
        StartupError: where it does not start, or does not answer this request.
    """
    async with started_engine(environ, settings) as (pid, path):
        loop = await ClosedLoop.connect(str(path), sample, settings.engine.request_timeout_s)
        try:
            first = await loop.run(1, 0.0, 0.01)  # perhaps the one that finds out where functions run
            alone_s = max(_LONE_S, _LONE_REQUESTS * _slowest(first) / 1e3)
            lone = await loop.run(1, 0.1 * alone_s, alone_s)
            if not lone.latencies_ms:
                raise StartupError(f"the engine answers this request with status {', '.join(map(str, lone.errors)) or 'none'}")
            # How long one takes among all the others is not known yet: at most as long as all would take one by one.
            round_s = min(_LONGEST_ROUND_S, in_flight * lone.latency_ms() / 1e3 / 4)
            watch = _Watch(pid)
            saturated = await loop.run(in_flight, min(round_s, 1.0) * _WARMUP_ROUNDS, max(seconds, 2 * round_s), watch)
        finally:
            await loop.close()
    served = max(1, len(saturated.latencies_ms))
    spent, machine_s = watch.spent()
    spent["client"] = saturated.client_cpu_s
    foreign = max(0.0, machine_s - sum(spent.values())) / saturated.seconds
    cpu_ms = {role: seconds / served * 1e3 for role, seconds in spent.items()}
    return Measured(lone.latency_ms(), saturated, in_flight, cpu_ms, foreign)


class _Watch:
    """CPU time by role between two moments."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._looks: list[tuple[dict[str, float], float]] = []

    def __call__(self, begins: bool) -> None:
        self._looks.append((cpu_seconds(self._pid), machine_cpu_seconds()))

    def spent(self) -> tuple[dict[str, float], float]:
        """Of the engine's processes by role, and of the whole machine."""
        (before, machine_before), (after, machine_after) = self._looks
        own = {role: max(0.0, seconds - before.get(role, 0.0)) for role, seconds in after.items()}
        return own, machine_after - machine_before


def _slowest(result: LoadResult) -> float:
    return result.latencies_ms[-1] if result.latencies_ms else 0.0
