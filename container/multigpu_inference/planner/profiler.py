"""What every profiler process does: load as a worker does, say so, measure what it is asked for until the planner hangs up.

Runs in the environment of the worker that it stands for, and the planner kills it when it has not been heard of for too long.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from multigpu_inference.engine.worker import answer_start_failure
from multigpu_inference.errors import ServingError, name_of
from multigpu_inference.ipc import Buffer, FrameSocket
from multigpu_inference.messages import Failure, Message, WorkerReady
from multigpu_inference.planner.asked import Progress

Measure: TypeAlias = Callable[[Message, Sequence[Any], "Ticker"], tuple[Message, Sequence[Buffer]]]

_SAY_AGAIN_S = 0.5


class Ticker:
    """Tells the planner what is being measured, and now and then that it goes on."""

    def __init__(self, planner: FrameSocket) -> None:
        """Nothing is said yet."""
        self._planner = planner
        self._text = ""
        self._said = 0.0

    def begin(self, text: str) -> None:
        """Another thing is measured now."""
        self._text, self._said = text, 0.0
        self.tick()

    def tick(self) -> None:
        """User code is about to be called."""
        now = time.monotonic()
        if now - self._said > _SAY_AGAIN_S:
            self._said = now
            self._planner.send(Progress(self._text))


def serve(planner: FrameSocket, load: Callable[[], Measure]) -> None:
    """Load, say so, measure; returns when the planner has gone, or where loading failed and it has been told."""
    started = time.perf_counter()
    try:
        measure = load()
    except BaseException as error:  # user code may raise what is no Exception
        answer_start_failure(planner, error)
        return
    planner.send(WorkerReady(os.getpid(), (time.perf_counter() - started) * 1e3))
    ticker = Ticker(planner)
    while True:
        try:
            message, blobs = planner.receive()
        except (EOFError, OSError):
            return
        try:
            said, out = measure(message, blobs, ticker)
        except ServingError as error:
            said, out = Failure(0, name_of(error), error.message, error.detail, int(error.status)), []
        planner.send(said, out)
        sys.stdout.flush()
