"""A pool worker: `input_fn` and `output_fn`, on one core, with no GPU to be seen.

The engine sets the environment before this process starts: `CUDA_VISIBLE_DEVICES` empty, so that a script written for
one GPU builds CPU tensors by itself, and one thread per library. The script's memory is limited once it is loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial

from multigpu_inference import process
from multigpu_inference.config import Settings
from multigpu_inference.context import Context
from multigpu_inference.engine import worker
from multigpu_inference.engine.memory_limit import limit_memory, ran_out
from multigpu_inference.engine.script_runner import ScriptRunner
from multigpu_inference.errors import FunctionFailed, PayloadTooLarge
from multigpu_inference.ipc import Buffer, FrameSocket
from multigpu_inference.messages import INPUT_FN, Result, Task
from multigpu_inference.one_line import one_line
from multigpu_inference.user_module import UserModule


def load() -> worker.Work:
    """Import the script."""
    settings = Settings.from_env(os.environ)
    context = Context(system_properties={"model_dir": str(settings.model.model_dir), "gpu_id": None})
    runner = ScriptRunner(UserModule.load(settings.model), context)
    if not settings.engine.preprocess_memory_bytes:
        return worker.Work(runner.run)
    limit_memory(settings.engine.preprocess_memory_bytes)
    return worker.Work(partial(run_within_memory, runner))


def run_within_memory(runner: ScriptRunner, task: Task, blobs: Sequence[Buffer]) -> tuple[Result, list[Buffer]]:
    """Run a task; where `input_fn` has not enough memory, say so to the client, whose choice its input was.

    Raises:
        PayloadTooLarge: where that is so.
        ServingError: what else a function raised, as an answer.
    """
    try:
        return runner.run(task, blobs)
    except (FunctionFailed, MemoryError) as error:
        if task.steps[0] != INPUT_FN or not ran_out(error):
            raise
        reason = one_line(error.__cause__ or error)
    # Not from it: its trace would keep all that the function had made.
    failed = PayloadTooLarge("the request needs more memory than it may have")
    failed.detail = f"input_fn needs more than MULTIGPU_PREPROCESS_MEMORY_MB allows: {reason}"
    try:
        raise failed
    finally:
        del failed  # an error that this frame had a name for would keep the frame, and the request's data


if __name__ == "__main__":
    worker.serve(FrameSocket(process.start_as_child(sys.argv[1:])), load)
