"""One worker process as the engine sees it: started, ready by a deadline, given tasks, found dead or hung.

    start ──► WorkerReady ──► run(task) … run(task) ──► the socket ends: dead
                  └─ StartFailed: StartupError

A worker may hold several tasks, and says when it is ready how many of them it works on at a time, the oldest first; the others
wait in it. When it dies, it was working on the former. A caller that gives up on a task leaves it with the worker, which is
told that nobody wants it (`interest`): its place is free again only when the answer has come. A task that is worked on longer
than any may take (`patience`) is taken for a hang, and the process is killed; where many share it, only once enough of them
are. So is a process that somebody has stopped. Who waits for a task is told whether its worker's end may have been its doing
(`death`).
"""

from __future__ import annotations

import asyncio
import itertools
import mmap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from multigpu_inference import log, process
from multigpu_inference.child_process import LAST_WORDS_S, Command, first_message, spawn
from multigpu_inference.engine.death import Cause, OomKills, cause_of
from multigpu_inference.engine.interest import Withdrawals
from multigpu_inference.engine.patience import Patience
from multigpu_inference.engine.request_arena import RequestArena
from multigpu_inference.errors import Exhausted, StartupError, WorkerDied, WorkerKilled, WorkerLost
from multigpu_inference.ipc import Blob, FrameStream
from multigpu_inference.messages import Failure, Result, Task, WithdrawalsOpened
from multigpu_inference.proc_stat import is_ending, is_stopped

# Tasks that wait in a worker beside those that it works on: enough for its next one to be there when it has done one.
_WAITING_IN_WORKER = 1
_LOOK_AGAIN_S = 1.0
# A device's driver takes back what a process had, after its socket has been closed and before its exit can be seen.
_ENDING_S = 10.0
_oom_kills = OomKills()


@dataclass(frozen=True, slots=True)
class Reply:
    """A worker's answer to a task, with the worker's name."""

    result: Result
    blobs: list[Blob]
    worker: str


class Place(Protocol):
    """What a task holds for as long as a worker has it, whether or not somebody still waits."""

    def lend(self) -> None:
        """The worker has it now."""

    def give_back(self) -> None:
        """The worker has answered, or has ended."""


class _Held(NamedTuple):
    """A task that a worker has not answered yet."""

    task: Task
    reply: asyncio.Future[Reply]
    arena: RequestArena | None
    sent: float  # on the loop's clock
    place: Place | None


class WorkerProcess:
    """A ready worker with the tasks that it holds."""

    def __init__(
        self, name: str, child: asyncio.subprocess.Process, stream: FrameStream, patience: Patience, concurrency: int
    ) -> None:
        """Use `start`."""
        self.name = name
        self.room = concurrency if concurrency > 1 else 1 + _WAITING_IN_WORKER
        self._concurrency = concurrency
        self._alone = False
        self.started_at = time.monotonic()
        self.on_room: Callable[[], None] = lambda: None
        self.on_spared: Callable[[str, str], None] = lambda reason, before: None
        self._child = child
        self._stream = stream
        self._patience = patience
        self._warm = False  # whether it has answered a task
        self._ids = itertools.count()
        self._withdrawals = Withdrawals.create(max(mmap.PAGESIZE, 2 * self.room))
        self._slots = list(range(len(self._withdrawals)))
        stream.send(WithdrawalsOpened(), descriptor=self._withdrawals.fileno())
        self._reserved = 0
        self._waiting: dict[int, _Held] = {}  # oldest first
        self._timer: asyncio.TimerHandle | None = None
        self._alive = True
        self._stopping = False
        self._was_stopped = False
        self._killed_for: Cause | None = None
        self.cause = Cause.OUTSIDE
        self._watcher = asyncio.create_task(self._watch(), name=f"watch {name}")

    @classmethod
    async def start(cls, command: Command, deadline: float, patience: Patience) -> WorkerProcess:
        """Start a worker and wait until it is ready.

        Args:
            command: What to start.
            deadline: By when it must be ready, on the loop's clock.
            patience: How long its tasks may take.

        Raises:
            StartupError: where it does not become ready.
        """
        child, stream = await spawn(command)
        try:
            ready = await first_message(command, child, stream, deadline)
            worker = cls(command.name, child, stream, patience, ready.concurrency)
        except BaseException as error:
            stream.close()
            process.kill_group(child.pid)
            await child.wait()
            if isinstance(error, OSError):
                raise StartupError(f"{command.name} ended before it could be used: {error.strerror}") from error
            raise
        log.event("worker_ready", worker=command.name, pid=ready.pid, load_ms=round(ready.load_ms))
        return worker

    @property
    def pid(self) -> int:
        """The process."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it can be given tasks."""
        return self._alive

    @property
    def in_flight(self) -> int:
        """Tasks that it holds, those included whose caller has given up, and places reserved; all where one is to be alone."""
        return self.room if self._alone else len(self._waiting) + self._reserved

    @property
    def oldest_task_sent(self) -> float | None:
        """When the oldest task that it holds was sent, in monotonic seconds; None where it holds none."""
        return next((held.sent for held in self._waiting.values()), None)

    def reserve(self, *, alone: bool = False) -> None:
        """Take a place, or all of them; `run` or `release` must follow."""
        self._reserved += 1
        self._alone = alone

    def release(self) -> None:
        """Give a reserved place back."""
        self._reserved -= 1
        self._alone = False
        self.on_room()

    async def run(
        self, task: Task, blobs: Sequence[Blob], arena: RequestArena | None = None, place: Place | None = None
    ) -> Reply:
        """Run a task on a place reserved before.

        Args:
            task: What to run; it is numbered here.
            blobs: What it is run on, inline or in the arena.
            arena: The request's. It is spoiled where it cannot be known whether the worker is done with it.
            place: Lent to the worker until it has answered.

        Raises:
            ServingError: what the task raised.
            WorkerDied: where the process ended while it worked on this task; `WorkerKilled` where that came from outside.
            WorkerLost: where it ended before it got to it.
            Exhausted: where there is no memory or descriptor here to send it.
        """
        self._reserved -= 1
        if not self._alive:
            raise WorkerLost
        slot = self._slots.pop()
        self._withdrawals.mark(slot, withdrawn=False)
        task.task_id, task.arena, task.slot = next(self._ids), arena.number if arena else 0, slot
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[task.task_id] = _Held(task, reply, arena, asyncio.get_running_loop().time(), place)
        if place is not None:
            place.lend()
        if self._timer is None:
            self._time_the_oldest()
        try:
            if arena is not None:
                arena.open_for(self._stream)
            self._stream.send(task, blobs)
        except ConnectionError:
            self._alive = False  # it has gone, or is going: what it still says is heard
            reply.set_exception(WorkerLost())
        except OSError:  # for want of memory or descriptors here: nothing was sent, and the worker is as good as ever
            self._settle(task.task_id)
            self._time_the_oldest()
            self.on_room()
            raise Exhausted from None
        try:
            return await reply
        except (asyncio.CancelledError, WorkerDied):
            if task.task_id in self._waiting:
                self._withdrawals.mark(slot, withdrawn=True)
            if arena is not None:
                arena.spoiled = True
            raise
        finally:
            del reply  # an error in it refers to this frame: together they would keep the arena until they are collected

    async def wait_closed(self) -> int:
        """Wait until the process has ended; its return code, negative for a signal's number."""
        await asyncio.wait([self._watcher])
        return await self._child.wait()

    async def stop(self, grace_s: float = 2.0) -> None:
        """End the process: by closing its socket, and by force where it takes longer than `grace_s`."""
        self._stopping = True
        self._close()
        try:
            async with asyncio.timeout(grace_s):
                await self._child.wait()
        except TimeoutError:
            pass
        finally:
            self.kill()
            await self._child.wait()

    def kill(self) -> None:
        """End the process and all that it started, at once."""
        process.kill_group(self._child.pid)

    def _time_the_oldest(self) -> None:
        """Give the oldest task its time: from now where it begins only now, from when it came where others go on beside it."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._waiting:
            loop = asyncio.get_running_loop()
            begins = loop.time() if self._concurrency == 1 else next(iter(self._waiting.values())).sent
            self._timer = loop.call_at(begins + self._limit_s(), self._hung)

    def _limit_s(self) -> float:
        return self._patience.limit_s(first=not self._warm)

    def _hung(self) -> None:
        loop = asyncio.get_running_loop()
        if self._patience.late_tasks > 1:
            late = sum(held.sent + self._limit_s() <= loop.time() for held in self._waiting.values())
            if late < self._patience.late_tasks:
                self._timer = loop.call_later(_LOOK_AGAIN_S, self._hung)
                return
        if is_stopped(self._child.pid):
            self._kill_stopped()
            return
        task = next(iter(self._waiting.values())).task
        log.event("worker_hung", worker=self.name, request_id=task.invocation.request_id, steps=task.steps)
        self._kill_for(Cause.HUNG)

    def _kill_for(self, cause: Cause) -> None:
        self._killed_for = self._killed_for or cause
        self.kill()

    def _look(self) -> None:
        """See whether somebody has stopped the process: twice in a row, as it may be continued at once."""
        _oom_kills.look()
        was_stopped, self._was_stopped = self._was_stopped, is_stopped(self._child.pid)
        if was_stopped and self._was_stopped:
            self._kill_stopped()

    def _kill_stopped(self) -> None:
        log.event("worker_stopped", worker=self.name, pid=self._child.pid)
        self._kill_for(Cause.OUTSIDE)

    async def _watch(self) -> None:
        """Take answers until the process has ended, or has closed its socket, which comes to the same."""
        reading, ended = asyncio.create_task(self._read()), asyncio.create_task(self._child.wait())
        first = asyncio.FIRST_COMPLETED
        try:
            while not (await asyncio.wait([reading, ended], timeout=_LOOK_AGAIN_S, return_when=first))[0]:
                self._look()
            # Its last answers may still be in the socket; and it should end by itself, so that its exit code is its own.
            self._alive = False
            await asyncio.wait([reading, ended], timeout=LAST_WORDS_S)
            if not ended.done() and is_ending(self._child.pid):
                await asyncio.wait([ended], timeout=_ENDING_S)
            if not ended.done() and not self._stopping:
                # Where it goes on without its socket, only its own code can have closed that.
                self._kill_for(Cause.OUTSIDE if is_ending(self._child.pid) else Cause.INSIDE)
                await asyncio.wait([ended], timeout=LAST_WORDS_S)
        finally:
            reading.cancel()
            ended.cancel()
            if not self._stopping:
                self.kill()  # with what it may have started
            self._close()

    async def _read(self) -> None:
        try:
            await self._stream.deliver(self._note)
        except (EOFError, OSError):
            return
        except Exception as error:  # user code has written into the socket: nothing that follows can be trusted
            log.exception("worker_not_understood", error, worker=self.name)

    def _settle(self, task_id: int) -> _Held:
        """A task that the worker does not have any more; its places are free."""
        held = self._waiting.pop(task_id)
        if held.place is not None:
            held.place.give_back()
        self._slots.append(held.task.slot)
        self._alone = self._alone and bool(self._waiting)
        return held

    def _note(self, message: Result | Failure, blobs: list[Blob]) -> None:
        """Hand an answer to who waits for it."""
        _, reply, arena, sent, _ = self._settle(message.task_id)
        if not self._warm and isinstance(message, Result):
            self._warm = True
            self._patience.first_task_took(asyncio.get_running_loop().time() - sent)
        self._time_the_oldest()
        if message.keeps_arena and arena is not None:
            arena.spoiled = True
        if isinstance(message, Failure) and message.spared:
            self.on_spared(message.error().code, message.spared)
        if not reply.done():  # done: its caller has given up
            if isinstance(message, Failure):
                reply.set_exception(message.error())
            else:
                reply.set_result(Reply(message, blobs, self.name))
        self.on_room()

    def _close(self) -> None:
        self._alive = False
        self._stream.close()
        self._withdrawals.close()
        waiting, self._waiting = self._waiting, {}
        self._time_the_oldest()
        if not self._stopping:
            just_now = asyncio.get_running_loop().time() - 2 * _LOOK_AGAIN_S
            began = min((held.sent for held in waiting.values()), default=just_now)
            self.cause = cause_of(self._child.returncode, self._killed_for, out_of_memory=_oom_kills.since(began))
        died = WorkerKilled if self.cause.is_nobodys else WorkerDied
        for number, held in enumerate(waiting.values()):
            if held.place is not None:
                held.place.give_back()
            if not held.reply.done():
                held.reply.set_exception(died() if number < self._concurrency else WorkerLost())
