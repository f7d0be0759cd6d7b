"""The fetch worker: `fetch_fn` and `store_fn`, on many threads, which mostly wait for somebody else's server.

A process of its own, so that a slow source holds no pool worker, and what reads from strangers' servers stands beside no GPU.

    body ──► fetch_fn ──► Fetched(data, store) or Bulk of them ──► data: to input_fn, store: kept by the engine
    answer of output_fn, store ──► store_fn ──► answer
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from multigpu_inference import credentials, process
from multigpu_inference.config import Settings
from multigpu_inference.context import Context
from multigpu_inference.engine import codec, hops, worker
from multigpu_inference.engine.script_runner import ScriptRunner, as_sent
from multigpu_inference.errors import BadRequest, ServingError, name_of
from multigpu_inference.fetched import Bulk, Fetched
from multigpu_inference.ipc import Buffer, FrameSocket
from multigpu_inference.messages import FETCH_FN, STORE_FN, Failure, FetchedItem, FetchResult, Result, Task
from multigpu_inference.user_module import UserModule, as_body, as_serving_error

# Each item of a bulk request has a memory file of its own while it is in the engine.
MAX_ITEMS = 1000


def load(threads: int) -> worker.Work:
    """Import the script; what is loaded may be called from so many threads at a time."""
    settings = Settings.from_env(os.environ).model
    context = Context(system_properties={"model_dir": str(settings.model_dir), "gpu_id": None})
    return worker.Work(FetchRunner(ScriptRunner(UserModule.load(settings), context)).run, threads)


class FetchRunner:
    """Runs `fetch_fn` or `store_fn` for a task."""

    def __init__(self, runner: ScriptRunner) -> None:
        """Keep what calls the script's functions."""
        self._runner = runner

    def run(self, task: Task, blobs: Sequence[Buffer]) -> tuple[Result, list[Buffer]]:
        """Run the task's one step.

        Raises:
            ServingError: what the function raised, as an answer.
        """
        with hops.recording() as spans:
            if task.steps == (STORE_FN,):
                answer = self._store(task, blobs)
                return Result(task.task_id, as_sent(spans), answer[1]), [answer[0]]
            value = self._runner.call(FETCH_FN, blobs[0], task.invocation)
            with hops.timed("copy_ms"):
                fetched, out = self._encode(task, value)
        return Result(task.task_id, as_sent(spans), fetched=fetched), out

    def _store(self, task: Task, blobs: Sequence[Buffer]) -> tuple[bytes, str]:
        with hops.timed("copy_ms"):
            given = bytes(blobs[0]), task.content_type, codec.decode(blobs[1:])
        return as_body(self._runner.call(STORE_FN, given, task.invocation), task.content_type)

    def _encode(self, task: Task, value: Any) -> tuple[FetchResult, list[Buffer]]:
        """What `fetch_fn` returned, as messages have it, and its blobs."""
        if not isinstance(value, Bulk):
            item, out = self._item(task, value)
            return FetchResult((item,)), out
        if not 1 <= len(value.items) <= MAX_ITEMS:
            raise BadRequest(f"a bulk request must have 1 to {MAX_ITEMS} items; this one has {len(value.items)}")
        items = [self._item(task, each) for each in value.items]
        return FetchResult(tuple(item for item, _ in items), bulk=True), [blob for _, out in items for blob in out]

    def _item(self, task: Task, value: Any) -> tuple[FetchedItem, list[Buffer]]:
        if isinstance(value, ServingError):
            error = as_serving_error(value, FETCH_FN)  # with what the log says of one that is raised
            failure = Failure(task.task_id, name_of(error), error.message, error.detail, int(error.status))
            return FetchedItem(failure=failure), []
        data, store = (value.data, value.store) if isinstance(value, Fetched) else (value, None)
        encoded = self._runner.encode(data, FETCH_FN)
        stored = [] if store is None else self._runner.encode(store, FETCH_FN)
        return FetchedItem(len(encoded), len(stored)), [*encoded, *stored]


if __name__ == "__main__":
    engine = FrameSocket(process.start_as_child(sys.argv[1:4]))
    credentials.guard(os.environ)
    worker.serve(engine, partial(load, int(sys.argv[4])))
