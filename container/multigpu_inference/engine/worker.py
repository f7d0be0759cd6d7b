"""What every worker process does: say that it is ready, then run one task after another until the engine hangs up.

Pool workers and replica workers differ in what they load.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from multigpu_inference import log
from multigpu_inference.errors import FunctionFailed, ServingError, StartupError, name_of
from multigpu_inference.ipc import Blob, FrameSocket, FrameTooLarge, check_frame
from multigpu_inference.messages import Failure, Message, Result, StartFailed, Task, WorkerReady
from multigpu_inference.user_module import one_line

DEVICE_LOST = 7  # exit code
RunTask: TypeAlias = Callable[[Task, Sequence[Blob]], tuple[Result, list[Blob]]]


def serve(engine: FrameSocket, load: Callable[[], RunTask]) -> None:
    """Load, say so, and run tasks until the engine has gone.

    Args:
        engine: The engine's socket.
        load: Makes what runs a task; `StartupError` where it cannot, which the engine is told.
    """
    started = time.perf_counter()
    # As multi-model-server's workers do before they load a script, so that what it logs is seen.
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    try:
        run = load()
    except BaseException as error:  # user code may raise what is no Exception, a panic of a Rust library for one
        answer_start_failure(engine, error)
        return
    said: Message = WorkerReady(os.getpid(), (time.perf_counter() - started) * 1e3)
    blobs: list[Blob] = []
    lost: BaseException | None = None
    try:
        while True:
            engine.send(said, blobs)
            if lost is not None:
                log.event("device_lost", reason=one_line(lost))
                sys.exit(DEVICE_LOST)
            task, body = engine.receive()
            said, blobs, lost = _answer(run, task, body)
    except (EOFError, OSError):
        return  # the engine has closed the socket, or is gone


def _answer(run: RunTask, task: Task, blobs: Sequence[Blob]) -> tuple[Message, list[Blob], BaseException | None]:
    """Run a task: its answer, and the error after which this process is of no more use, if there was one."""
    request_id = task.invocation.request_id
    try:
        result, out = run(task, blobs)
        check_frame(out)
        return result, out, None
    except FrameTooLarge as error:
        detail = f"what {task.steps[-1]} returned: {error}"
        return Failure(task.task_id, FunctionFailed.__name__, "", detail), [], None
    except ServingError as error:
        cause = error.__cause__ or error
        if error.status >= 500 and not (task.trial and len(task.steps) == 1):  # a failure in the pool is a trial's finding
            log.exception("function_failed", cause, request_id=request_id, reason=error.detail)
        failure = Failure(task.task_id, name_of(error), error.message, error.detail, error.status)
        return failure, [], cause if is_sticky(cause) else None
    except BaseException as error:  # a fault of ours: the request fails, the worker does not
        log.exception("task_failed", error, request_id=request_id)
        return Failure(task.task_id, ServingError.__name__, "", one_line(error)), [], None


def is_sticky(error: BaseException) -> bool:
    """Whether this error has poisoned the process's CUDA context, so that every later call on the device fails too.

    A device-side assert, an illegal access, a lost device: only a new process helps. Out of memory is not one of them.
    """
    names = {cls.__name__ for cls in type(error).__mro__}
    if "OutOfMemoryError" in names:
        return False
    return "AcceleratorError" in names or (isinstance(error, RuntimeError) and "CUDA error" in str(error))


def answer_start_failure(engine: FrameSocket, error: BaseException) -> None:
    """Tell the engine why this process cannot start; where user code raised, its trace goes to the log."""
    if error.__cause__ is not None or not isinstance(error, StartupError):
        log.exception("load_failed", error.__cause__ or error)
    message = str(error) if isinstance(error, StartupError) else one_line(error)
    engine.send(StartFailed(message))
    sys.stdout.flush()
