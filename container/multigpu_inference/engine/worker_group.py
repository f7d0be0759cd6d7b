"""A fixed number of workers of one kind, kept alive: tasks go to the next in turn, who dies is replaced.

    run ──► scheduler: the next worker in turn with room ──► its answer
                 └─ it died while this waited in it: to another

A worker that dies is replaced at once, by a warm spare where the group keeps one; where workers die soon after their start,
new ones are started after ever longer pauses. A slot whose workers fail to start five times in a row is given up.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias

from multigpu_inference import log
from multigpu_inference.child_process import Command
from multigpu_inference.engine.request_arena import RequestArena
from multigpu_inference.engine.scheduler import Scheduler
from multigpu_inference.engine.telemetry.snapshot import WorkerState
from multigpu_inference.engine.worker_process import Patience, Place, Reply, WorkerProcess
from multigpu_inference.errors import StartupError, WorkerLost
from multigpu_inference.ipc import Blob
from multigpu_inference.messages import Task

Prepare: TypeAlias = Callable[[WorkerProcess], Awaitable[None]]

_STABLE_AFTER_S = 60.0
_LONGEST_PAUSE_S = 30.0
_GIVE_UP_AFTER_FAILURES = 5


class WorkerGroup:
    """The workers of one kind."""

    def __init__(
        self,
        kind: str,
        command: Callable[[int], Command],
        count: int,
        room: int,
        *,
        startup_timeout_s: float,
        hang_after_s: float,
        late_tasks: int = 1,
        keep_spare: bool = False,
        refuse_when_none: bool = False,
        take_turns: bool = True,
        prepare: Prepare | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            kind: `replica`, `pool` or `fetch`; with the slot's number it names a place for the metrics, whoever has it.
            command: How the worker of a slot is started. Where a spare is kept, any slot's must do for any other.
            count: Workers.
            room: Tasks that one worker may hold.
            startup_timeout_s: How long one may take to be ready.
            hang_after_s: How long a task may take before its worker is killed.
            late_tasks: How many of a worker's tasks must have taken longer than that.
            keep_spare: Whether one more worker is kept warm to take a dead one's place at once.
            refuse_when_none: Whether tasks are refused while no worker lives; else they wait.
            take_turns: Whether each worker has its turn; else the one goes first that was busy last.
            prepare: What is done with a ready worker before it gets its first request.
        """
        self._kind = kind
        self._command = command
        self._scheduler = Scheduler(count, room, refuse_when_none=refuse_when_none, take_turns=take_turns)
        self._startup_timeout_s = startup_timeout_s
        self._patience = Patience(startup_timeout_s, hang_after_s, late_tasks)
        self._keep_spare = keep_spare
        self._prepare = prepare
        self._stopping = False
        self._restarts = [0] * count
        self._spare: asyncio.Task[WorkerProcess] | None = None
        self._keepers: list[asyncio.Task[None]] = []
        self.lost = asyncio.Event()

    @property
    def workers(self) -> Sequence[WorkerProcess | None]:
        """By slot; None while one is being replaced."""
        return self._scheduler.workers

    @property
    def healthy(self) -> int:
        """Workers that live."""
        return self._scheduler.healthy

    @property
    def spares(self) -> int:
        """Warm workers that wait to take a place."""
        spare = self._spare
        return int(spare is not None and spare.done() and not spare.cancelled() and spare.exception() is None)

    def states(self) -> tuple[WorkerState, ...]:
        """How each slot is."""
        return tuple(
            WorkerState(f"{self._kind}-{slot}", None, 0, None, restarts)
            if worker is None
            else WorkerState(f"{self._kind}-{slot}", worker.pid, worker.in_flight, worker.oldest_task_sent, restarts)
            for slot, (worker, restarts) in enumerate(zip(self.workers, self._restarts, strict=True))
        )

    async def start(self) -> None:
        """Start all workers, side by side; `StartupError` as soon as one fails."""
        slots = range(len(self._scheduler.workers))
        try:
            async with asyncio.TaskGroup() as group:
                for slot in slots:
                    group.create_task(self._start_first(slot))
        except BaseExceptionGroup as failed:
            await self.stop()
            raise failed.exceptions[0] from None
        self._keepers = [asyncio.create_task(self._keep(slot), name=f"keep {slot}") for slot in slots]
        self._start_spare()

    async def run(
        self,
        task: Task,
        blobs: Sequence[Blob],
        arena: RequestArena | None = None,
        *,
        urgent: bool = False,
        alone: bool = False,
        place: Place | None = None,
    ) -> Reply:
        """Run a task on the next worker in turn; on another where that one ends before it comes to it.

        Args:
            task: What to run.
            blobs: What it is run on.
            arena: The request's.
            urgent: Whether it goes before those that are not.
            alone: Whether it is to have a worker for itself.
            place: Lent to the worker until it has answered.

        Raises:
            ServingError: what the task raised; `Unavailable` where no worker lives.
            WorkerDied: where the worker ended while it worked on it.
        """
        while True:
            worker = await self._scheduler.reserve(urgent=urgent, alone=alone)
            try:
                return await worker.run(task, blobs, arena, place)
            except WorkerLost:
                log.event("task_moved", request_id=task.invocation.request_id, steps=task.steps, because="its worker ended")

    async def stop(self) -> None:
        """End all workers and wait until they have ended."""
        self._stopping = True
        tasks = [*self._keepers, *([self._spare] if self._spare else [])]
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        workers = [w for w in [*self._scheduler.workers, *ended] if isinstance(w, WorkerProcess)]
        await asyncio.gather(*(worker.stop() for worker in workers))

    async def _start_first(self, slot: int) -> None:
        self._install(slot, await self._start_worker(slot))

    async def _start_worker(self, slot: int) -> WorkerProcess:
        deadline = asyncio.get_running_loop().time() + self._startup_timeout_s
        worker = await WorkerProcess.start(self._command(slot), deadline, self._patience)
        if self._prepare is not None:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._prepare(worker)
            except BaseException as error:
                await worker.stop()
                if isinstance(error, TimeoutError):
                    raise StartupError(f"{worker.name} was not warmed up in time") from None
                raise
        return worker

    def _install(self, slot: int, worker: WorkerProcess) -> None:
        worker.on_room = partial(self._scheduler.has_room, slot)
        self._scheduler.workers[slot] = worker
        self._scheduler.has_room(slot)

    def _start_spare(self) -> None:
        if self._keep_spare and not self._stopping:
            self._spare = asyncio.create_task(self._start_worker(len(self._scheduler.workers)), name="spare")

    async def _keep(self, slot: int) -> None:
        """Replace the slot's worker whenever it dies, until it is given up or the group stops."""
        deaths = 0  # in short succession
        while (worker := self._scheduler.workers[slot]) is not None:
            code = await worker.wait_closed()
            self._scheduler.workers[slot] = None
            self._scheduler.changed()
            deaths = 0 if time.monotonic() - worker.started_at > _STABLE_AFTER_S else deaths + 1
            log.event("worker_died", worker=worker.name, pid=worker.pid, reason=_reason(code))
            replacement = await self._take_spare() or await self._start_again(slot, deaths)
            if replacement is not None:
                self._restarts[slot] += 1
                self._install(slot, replacement)
        log.event("worker_given_up", slot=slot)
        if all(keeper.done() for keeper in self._keepers if keeper is not asyncio.current_task()):
            self.lost.set()

    async def _take_spare(self) -> WorkerProcess | None:
        """The spare, once it is ready, and a new one in its place; None where there is none to be had."""
        if self._spare is None:
            return None
        spare, self._spare = self._spare, None
        try:
            worker = await spare
        except (StartupError, OSError) as error:
            log.event("worker_failed_to_start", reason=str(error))
            return None
        finally:
            self._start_spare()
        return worker if worker.alive else None

    async def _start_again(self, slot: int, deaths: int) -> WorkerProcess | None:
        """A new worker, after a pause where the last ones died early; None where five starts in a row have failed."""
        for failures in range(_GIVE_UP_AFTER_FAILURES):
            await asyncio.sleep(_pause_s(deaths + failures))
            try:
                return await self._start_worker(slot)
            except (StartupError, OSError) as error:  # such as too many open files
                log.event("worker_failed_to_start", slot=slot, reason=str(error), failures=failures + 1)
        return None


def _pause_s(mishaps: int) -> float:
    """None before the first new start, then 1, 2, 4 … seconds."""
    return min(_LONGEST_PAUSE_S, 2.0 ** (mishaps - 2)) if mishaps > 1 else 0.0


def _reason(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
