"""What every worker process does: say that it is ready, then run tasks until the engine hangs up.

    socket ──► task, its bytes in the request's arena ──► the script's functions ──► result behind them in the arena ──► socket

Pool workers and replica workers differ in what they load. A pool worker runs one task at a time, on the thread that loaded
the script; so does a replica worker, unless its model is made of stages: then each task it holds has a thread, which mostly
waits for the stages (`pipeline`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from multigpu_inference import log
from multigpu_inference.arena import Arena, ArenaFull, Views
from multigpu_inference.engine import interest
from multigpu_inference.engine.death import BROKEN, DEVICE_LOST
from multigpu_inference.engine.device_error import DeviceErrorKind, device_error_kind
from multigpu_inference.engine.interest import Withdrawals
from multigpu_inference.errors import (
    DeadlineExceeded,
    Exhausted,
    FunctionFailed,
    OutOfMemory,
    ServingError,
    StartupError,
    name_of,
)
from multigpu_inference.ipc import Blob, Buffer, FrameSocket
from multigpu_inference.messages import (
    ArenaClosed,
    ArenaOpened,
    Failure,
    Result,
    StartFailed,
    Task,
    WithdrawalsOpened,
    WorkerReady,
)
from multigpu_inference.one_line import one_line

_HUNG_UP = (BrokenPipeError, ConnectionResetError)
RunTask: TypeAlias = Callable[[Task, Sequence[Buffer]], tuple[Result, list[Buffer]]]


def no_preparation(arena: Arena) -> None:
    """An arena is used as it comes."""


class Work(NamedTuple):
    """What a worker has loaded.

    Attributes:
        run: Runs a task on the bytes that came with it; its result, and the bytes that go with that.
        concurrency: From how many threads at a time it may be called; 1: from the one that loaded it only.
        prepare: Is given each arena once, before the first task that uses it.
    """

    run: RunTask
    concurrency: int = 1
    prepare: Callable[[Arena], None] = no_preparation


def serve(engine: FrameSocket, load: Callable[[], Work], leave: Callable[[int], object] = os._exit) -> None:
    """Load, say so, and run tasks until the engine has gone.

    Args:
        engine: The engine's socket.
        load: Makes what runs a task; `StartupError` where it cannot, which the engine is told.
        leave: Ends the process, from any thread, with an exit code.
    """
    started = time.perf_counter()
    _be_a_batch_process()
    # As multi-model-server's workers do before they load a script, so that what it logs is seen.
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    try:
        work = load()
    except BaseException as error:  # user code may raise what is no Exception, a panic of a Rust library for one
        answer_start_failure(engine, error)
        return
    engine.send(WorkerReady(os.getpid(), (time.perf_counter() - started) * 1e3, work.concurrency))
    _Worker(engine, work, leave).serve()


class _Worker:
    """Takes tasks from the engine and answers them."""

    def __init__(self, engine: FrameSocket, work: Work, leave: Callable[[int], object]) -> None:
        self._engine = engine
        self._work = work
        self._leave = leave
        self._arenas: dict[int, Arena] = {}
        self._withdrawals: Withdrawals | None = None
        self._receiving = threading.Lock()
        self._sending = threading.Lock()

    def serve(self) -> None:
        """Take tasks on this thread, and on as many others as may work at a time, until the engine hangs up."""
        others = [threading.Thread(target=self._take_all, name=f"task-{i}") for i in range(1, self._work.concurrency)]
        for thread in others:
            thread.start()
        self._take_all()
        for thread in others:
            thread.join()

    def _take_all(self) -> None:
        """Work until the engine hangs up. Anything else that happens to the connection ends the process, which is replaced.

        A worker that went on with a thread less, or without an arena that it was given, would fail requests for ever.
        """
        try:
            while True:
                self._perform(*self._take())
        except (EOFError, *_HUNG_UP):
            return
        except BaseException as error:
            log.exception("worker_broken", error)
            self._leave(BROKEN)

    def _take(self) -> tuple[Task, list[Blob], Arena | None]:
        """The next task, on the thread that will run it: handing it to another one would cost more than its receipt.

        A task has its arena for as long as it runs, even where that is closed meanwhile.
        """
        with self._receiving:
            while True:
                message, blobs = self._engine.receive()
                if isinstance(message, ArenaOpened):
                    arena = self._arenas[message.number] = Arena(blobs[0].take())
                    self._work.prepare(arena)
                    del arena
                elif isinstance(message, ArenaClosed):
                    self._arenas.pop(message.number, None)
                elif isinstance(message, WithdrawalsOpened):
                    self._withdrawals = Withdrawals(blobs[0].take())
                else:
                    return message, blobs, self._arenas.get(message.arena)

    def _perform(self, task: Task, blobs: list[Blob], arena: Arena | None) -> None:
        try:
            views = Views(arena, blobs)
            said, out = self._answer(task, views.blobs, arena)
            if views.kept():
                said = dataclasses.replace(said, keeps_arena=True)
        except BaseException as error:  # a fault of ours, or a device's between two functions: the worker lives on
            kind = self._kind_of(error)
            log.exception("task_failed", error, request_id=task.invocation.request_id)
            told: type[ServingError] = OutOfMemory if kind is DeviceErrorKind.OUT_OF_MEMORY else ServingError
            if isinstance(error, OSError):  # its arena cannot be reached
                told = Exhausted
                if error.errno == errno.EMFILE:  # what the script leaves open stays so: a fresh process can go on
                    self._leave(BROKEN)
            name = told.__name__
            # Nobody knows what of the arena it still refers to.
            said, out = Failure(task.task_id, name, "", one_line(error), keeps_arena=True), []
        if isinstance(said, Failure) and said.kind == OutOfMemory.__name__:
            _free_memory()  # only here the error is gone, and with its trace what the function had allocated
        with self._sending:
            self._engine.send(said, out)

    def _answer(self, task: Task, blobs: Sequence[Buffer], arena: Arena | None) -> tuple[Result | Failure, Sequence[Blob]]:
        """Run a task: its answer, and its bytes as they go into a frame."""
        try:
            with interest.held(interest.Interest(task.invocation.deadline, self._withdrawals, task.slot)):
                result, out = self._work.run(task, blobs)
            return result, out if arena is None else arena.write(out, task.arena_used)
        except ArenaFull as error:
            detail = f"what {task.steps[-1]} returned: {error}"
            return Failure(task.task_id, FunctionFailed.__name__, "", detail, keeps_arena=True), []  # it is full
        except OSError as error:  # the arena's: what a function raises is a `ServingError` by now
            return Failure(task.task_id, Exhausted.__name__, "", f"what {task.steps[-1]} returned: {one_line(error)}"), []
        except ServingError as error:
            return self._failure(task, error), []

    def _failure(self, task: Task, error: ServingError) -> Failure:
        """An error as it is sent. Not made where it was caught: a name for it there would keep it, and what it refers to."""
        cause = error.__cause__ or error
        kind = self._kind_of(error)
        # What a script itself has made an answer of is its answer.
        no_memory = kind is DeviceErrorKind.OUT_OF_MEMORY and isinstance(error, FunctionFailed)
        a_finding = task.trial and len(task.steps) == 1  # a failure in the pool is a trial's finding
        if error.status >= 500 and not a_finding and not isinstance(error, DeadlineExceeded):
            log.exception("function_failed", cause, request_id=task.invocation.request_id, reason=error.detail)
        if no_memory:
            return Failure(task.task_id, OutOfMemory.__name__, "", error.detail)
        return Failure(task.task_id, name_of(error), error.message, error.detail, error.status, spared=error.spared)

    def _kind_of(self, error: BaseException) -> DeviceErrorKind:
        """What an error is. A lost device ends the process here, without an answer: the engine tries it elsewhere."""
        kind = device_error_kind(error)
        if kind is DeviceErrorKind.STICKY:
            log.exception("device_lost", error, reason=one_line(error.__cause__ or error))
            self._leave(DEVICE_LOST)
        return kind


def _free_memory() -> None:
    """Give back what is in cycles, and what torch's allocators keep for later."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        with contextlib.suppress(Exception):  # a lost device: the next call on it says so
            torch.cuda.empty_cache()


def answer_start_failure(engine: FrameSocket, error: BaseException) -> None:
    """Tell the engine why this process cannot start; where user code raised, its trace goes to the log."""
    if error.__cause__ is not None or not isinstance(error, StartupError):
        log.exception("load_failed", error.__cause__ or error)
    message = str(error) if isinstance(error, StartupError) else one_line(error)
    engine.send(StartFailed(message))
    sys.stdout.flush()


def _be_a_batch_process() -> None:
    """Let the kernel take this process for one that computes: it is woken less eagerly, and interrupts the engine less."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
