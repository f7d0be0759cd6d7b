"""A fixed number of workers of one kind, kept alive: tasks go to the next in turn, who dies is replaced.

    run ──► scheduler: the next worker in turn with room ──► its answer
                 └─ it died while this waited in it: to another

A worker that dies is replaced at once, by a warm spare where the group keeps one; where workers die soon after their start,
new ones are started after ever longer pauses, and at last not any more (`slot_record`). With too few left, or too few for too
long (`minimum`), the group is lost. A worker that is much slower than the others can be taken out (`slow_replicas`).
"""

from __future__ import annotations

import asyncio
import signal
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias

from multigpu_inference import log
from multigpu_inference.child_process import Command
from multigpu_inference.engine.death import DEVICE_LOST, Cause
from multigpu_inference.engine.minimum import Minimum, pause_limit_s, recovery_limit_s
from multigpu_inference.engine.patience import Patience
from multigpu_inference.engine.request_arena import RequestArena
from multigpu_inference.engine.scheduler import Scheduler
from multigpu_inference.engine.slot_record import SlotRecord
from multigpu_inference.engine.slow_replicas import Finding, SlowReplicas
from multigpu_inference.engine.telemetry.snapshot import WorkerState
from multigpu_inference.engine.worker_process import Place, Reply, WorkerProcess
from multigpu_inference.errors import DeadlineExceeded, OutOfMemory, StartupError, WorkerDied, WorkerKilled, WorkerLost
from multigpu_inference.ipc import Blob
from multigpu_inference.messages import Task

Prepare: TypeAlias = Callable[[WorkerProcess], Awaitable[None]]

# Before a spare is started in the place of one that died idle or did not start: should each, others must not lose the cores.
_SPARE_PAUSE_S = 1.0
_MOST_FAILED = 1024


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
        first_task_s: float | None = None,
        late_tasks: int = 1,
        keep_spare: bool = False,
        refuse_when_none: bool = False,
        take_turns: bool = True,
        prepare: Prepare | None = None,
        at_least: int = 1,
        slow: SlowReplicas | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            kind: `replica`, `pool` or `fetch`; with the slot's number it names a place for the metrics, whoever has it.
            command: How the worker of a slot is started. Where a spare is kept, any slot's must do for any other.
            count: Workers.
            room: Tasks that one worker may hold.
            startup_timeout_s: How long one may take to be ready.
            hang_after_s: How long a task may take before its worker is killed.
            first_task_s: How long a fresh worker's first one may, at most; None: as long as a start.
            late_tasks: How many of a worker's tasks must have taken longer than that.
            keep_spare: Whether one more worker is kept warm to take a dead one's place at once.
            refuse_when_none: Whether tasks are refused while no worker lives; else they wait.
            take_turns: Whether each worker has its turn; else the one goes first that was busy last.
            prepare: What is done with a ready worker before it gets its first request.
            at_least: How many workers are enough for the group not to be lost.
            slow: Finds out which worker is much slower than the others; None: nobody does.
        """
        self._kind = kind
        self._command = command
        limit = {} if slow is None else {"limit": slow.limit}
        self._scheduler = Scheduler(count, room, refuse_when_none=refuse_when_none, take_turns=take_turns, **limit)
        self._startup_timeout_s = startup_timeout_s
        self._patience = Patience(startup_timeout_s if first_task_s is None else first_task_s, hang_after_s, late_tasks)
        self._keep_spare = keep_spare
        self._prepare = prepare
        self._stopping = False
        self._restarts = [0] * count
        self._records = [SlotRecord() for _ in range(count)]
        self._slots = weakref.WeakKeyDictionary[WorkerProcess, int]()
        self._at_least = at_least
        self._failed_in: dict[str, int] = {}  # requests that may be tried once more, and where not; oldest first
        self._minimum = Minimum(at_least, self._lose)
        self._longest_load_s = 0.0
        self._slow = slow
        self._spare: asyncio.Task[WorkerProcess] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._spare_record = SlotRecord()
        self._keepers: list[asyncio.Task[None]] = []
        self.lost = asyncio.Event()
        self.on_spared: Callable[[str, str], None] = lambda reason, before: None

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
        ready = spare is not None and spare.done() and not spare.cancelled() and spare.exception() is None
        return int(ready and spare is not None and spare.result().alive)

    def states(self) -> tuple[WorkerState, ...]:
        """How each slot is."""
        return tuple(
            WorkerState(f"{self._kind}-{slot}", None, 0, None, restarts)
            if worker is None
            else WorkerState(
                f"{self._kind}-{slot}",
                worker.pid,
                worker.in_flight,
                worker.oldest_task_sent,
                restarts,
                self._slow is not None and self._slow.is_out(slot),
            )
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
            WorkerDied: where the worker ended while it worked on it; `WorkerKilled` where that came from outside.
        """
        request_id = task.invocation.request_id
        avoid = self._failed_in.pop(request_id, None)
        while True:
            worker = await self._scheduler.reserve(urgent=urgent, alone=alone, avoid=avoid)
            try:
                return await self._run_on(worker, task, blobs, arena, place)
            except WorkerLost:
                log.event("task_moved", request_id=request_id, steps=task.steps, because="its worker ended")
            except WorkerKilled:
                raise
            except WorkerDied:
                self._note_failed_in(request_id, worker)
                if alone:  # nobody else had a task in it: it is this one that ends workers
                    for record in self._records:
                        record.excuse()
                raise
            except OutOfMemory:
                self._note_failed_in(request_id, worker)
                raise

    def _note_failed_in(self, request_id: str, worker: WorkerProcess) -> None:
        """Have it tried in another place, should it be tried once more: what was wrong may have been wrong with this one."""
        self._failed_in[request_id] = self._slots[worker]
        if len(self._failed_in) > _MOST_FAILED:  # not all are tried once more
            del self._failed_in[next(iter(self._failed_in))]

    async def _run_on(
        self, worker: WorkerProcess, task: Task, blobs: Sequence[Blob], arena: RequestArena | None, place: Place | None
    ) -> Reply:
        """Run a task on a place reserved before, and take note of how that went."""
        slot, sent = self._slots[worker], time.monotonic()
        probe = self._slow is not None and self._slow.is_probed(slot)
        try:
            reply = await worker.run(task, blobs, arena, place)
        except (asyncio.CancelledError, DeadlineExceeded):
            if time.monotonic() >= task.invocation.deadline:  # it took longer than that: a time, too
                self._note_time(slot, task, sent, probe=probe)
            raise
        self._note_time(slot, task, sent, probe=probe)
        self._records[slot].answered()
        return reply

    def _note_time(self, slot: int, task: Task, sent: float, *, probe: bool) -> None:
        """Take note of how long a task took, and do what is found out by it."""
        if self._slow is None or task.trial:  # a trial does the work several times
            return
        verdict = self._slow.answered(slot, time.monotonic() - sent, probe=probe)
        if verdict is None:
            return
        worker = self._scheduler.workers[verdict.slot]
        log.event(
            verdict.finding.value,
            worker=worker and worker.name,
            median_ms=round(verdict.median_s * 1e3, 1),
            peers_median_ms=round(verdict.peers_median_s * 1e3, 1),
            rests_s=verdict.rest_s,
        )
        if verdict.finding is Finding.REPLACE and worker is not None:
            worker.kill()
        self._scheduler.changed()

    async def stop(self) -> None:
        """End all workers and wait until they have ended."""
        self._stopping = True
        self._minimum.stop()
        tasks = [*self._keepers, *(task for task in (self._spare, self._renewal) if task is not None)]
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        workers = [w for w in [*self._scheduler.workers, *ended] if isinstance(w, WorkerProcess)]
        await asyncio.gather(*(worker.stop() for worker in workers))

    async def _start_first(self, slot: int) -> None:
        started = time.monotonic()
        self._install(slot, await self._start_worker(slot, self._startup_timeout_s))
        self._longest_load_s = max(self._longest_load_s, time.monotonic() - started)

    @property
    def _recovery_limit_s(self) -> float:
        return min(self._startup_timeout_s, recovery_limit_s(self._longest_load_s))

    async def _start_worker(self, slot: int, limit_s: float) -> WorkerProcess:
        deadline = asyncio.get_running_loop().time() + limit_s
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
        worker.on_room = partial(self._has_room, slot)
        worker.on_spared = self.on_spared
        self._scheduler.workers[slot] = worker
        self._slots[worker] = slot
        if self._slow is not None:
            self._slow.replaced(slot)
        self._note_living()
        self._scheduler.has_room(slot)

    def _has_room(self, slot: int) -> None:
        if self._slow is not None and self._slow.is_probed(slot):
            # Once its answer's time has been noted: it may have to miss some turns.
            asyncio.get_running_loop().call_soon(self._scheduler.has_room, slot)
        else:
            self._scheduler.has_room(slot)

    def _note_living(self) -> None:
        living = [slot for slot, worker in enumerate(self._scheduler.workers) if worker is not None]
        if self._slow is not None:
            self._slow.lives(living)
        if self._keepers and not self._stopping:
            self._minimum.lives(len(living), self._recovery_limit_s)

    def _lose(self) -> None:
        if self.lost.is_set():
            return
        log.event("too_few_workers", kind=self._kind, living=self.healthy, at_least=self._at_least)
        self.lost.set()

    def _start_spare(self) -> None:
        if self._keep_spare and not self._stopping:
            start = self._start_worker(len(self._scheduler.workers), self._recovery_limit_s)
            self._spare = asyncio.create_task(start, name="spare")
            self._renewal = asyncio.create_task(self._renew(self._spare), name="renew spare")

    async def _renew(self, spare: asyncio.Task[WorkerProcess]) -> None:
        """Start another spare where one dies or does not start that nobody has taken: the next death would cost a start."""
        await asyncio.wait([spare])
        if spare.cancelled():
            return
        error = spare.exception()
        if error is None:
            self._spare_record.answered()
            worker = spare.result()
            code = await worker.wait_closed()
            log.event("worker_died", worker=worker.name, pid=worker.pid, reason=_reason(code), cause=worker.cause)
        else:
            self._spare_record.failed_to_start()
            log.event("worker_failed_to_start", reason=str(error))
        await asyncio.sleep(max(_SPARE_PAUSE_S, self._spare_record.pause_s))
        self._start_spare()

    async def _keep(self, slot: int) -> None:
        """Replace the slot's worker whenever it dies, until it is given up or the group stops."""
        record = self._records[slot]
        while (worker := self._scheduler.workers[slot]) is not None:
            code = await worker.wait_closed()
            died = time.monotonic()
            self._scheduler.workers[slot] = None
            self._note_living()
            self._scheduler.changed()
            record.ended(died - worker.started_at, from_outside=worker.cause is Cause.OUTSIDE, lost_device=code == DEVICE_LOST)
            log.event("worker_died", worker=worker.name, pid=worker.pid, reason=_reason(code), cause=worker.cause)
            replacement = await self._replacement(slot)
            if replacement is not None:
                self._restarts[slot] += 1
                self._install(slot, replacement)
                after_ms = round((time.monotonic() - died) * 1e3)
                log.event("worker_replaced", worker=worker.name, by=replacement.name, after_ms=after_ms)
        log.event("worker_given_up", kind=self._kind, slot=slot, failures=record.failures)
        if sum(not each.given_up for each in self._records) < self._at_least:
            self._lose()

    async def _take_spare(self) -> WorkerProcess | None:
        """The spare, once it is ready, and a new one in its place; None where there is none to be had."""
        if self._spare is None or self._renewal is None:
            return None
        spare, self._spare = self._spare, None
        self._renewal.cancel()
        try:
            worker = await spare
        except (StartupError, OSError) as error:
            log.event("worker_failed_to_start", reason=str(error))
            return None
        finally:
            self._start_spare()
        return worker if worker.alive else None

    def _pause_s(self, record: SlotRecord) -> float:
        too_few = self.healthy < self._at_least
        return min(record.pause_s, pause_limit_s(self._recovery_limit_s)) if too_few else record.pause_s

    async def _replacement(self, slot: int) -> WorkerProcess | None:
        """A new worker, after a pause where the last ones ended early; None where the slot is given up."""
        record = self._records[slot]
        while not record.given_up:
            spare = await self._take_spare()
            if spare is not None:
                return spare
            await asyncio.sleep(self._pause_s(record))
            try:
                return await self._start_worker(slot, self._recovery_limit_s)
            except (StartupError, OSError) as error:  # such as too many open files
                record.failed_to_start()
                log.event("worker_failed_to_start", slot=slot, reason=str(error), failures=record.failures)
        return None


def _reason(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
