"""A pool worker's stand-in: times `input_fn` and `output_fn` where they would run, on one core with no GPU to be seen.

Run as `python -m multigpu_inference.planner.pool_profiler FD PARENT_PID NAME`, with a pool worker's environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from multigpu_inference import process
from multigpu_inference.config import Settings
from multigpu_inference.context import Context
from multigpu_inference.engine import codec
from multigpu_inference.engine.script_runner import ScriptRunner
from multigpu_inference.ipc import Buffer, FrameSocket
from multigpu_inference.messages import INPUT_FN, OUTPUT_FN, Invocation
from multigpu_inference.planner.asked import FunctionMeasured, MeasureFunction
from multigpu_inference.planner.memory import resident_bytes
from multigpu_inference.planner.profile import FunctionProfile
from multigpu_inference.planner.profiler import Measure, Ticker, serve
from multigpu_inference.planner.stopwatch import time_calls
from multigpu_inference.user_module import UserModule, as_body


def load() -> Measure:
    """Import the script."""
    settings = Settings.from_env(os.environ).model
    context = Context(system_properties={"model_dir": str(settings.model_dir), "gpu_id": None})
    return partial(_measure, ScriptRunner(UserModule.load(settings), context))


def _measure(
    runner: ScriptRunner, message: MeasureFunction, blobs: Sequence[Any], ticker: Ticker
) -> tuple[FunctionMeasured, Sequence[Buffer]]:
    ticker.begin(message.function)
    call = partial(_pass_input if message.function == INPUT_FN else _pass_output, runner, message.invocation)
    out, content_type = call(_copies(blobs))
    cost = time_calls(call, lambda: _copies(blobs), ticker.tick)
    size = sum(memoryview(blob).nbytes for blob in out)
    return FunctionMeasured(FunctionProfile(cost, process_bytes=resident_bytes(), bytes_out=size), content_type), out


def _pass_input(runner: ScriptRunner, invocation: Invocation, blobs: Sequence[Any]) -> tuple[list[Buffer], None]:
    """From the body to what is sent on."""
    return runner.encode(runner.call(INPUT_FN, blobs[0], invocation), INPUT_FN), None


def _pass_output(runner: ScriptRunner, invocation: Invocation, blobs: Sequence[Any]) -> tuple[list[Buffer], str]:
    """From the encoded prediction to the answer's body."""
    body, content_type = as_body(runner.call(OUTPUT_FN, codec.decode(blobs), invocation), invocation.accept)
    return [body], content_type


def _copies(blobs: Sequence[Any]) -> list[bytearray]:
    """As they came: what a call changed in place is not the next one's."""
    return [bytearray(blob) for blob in blobs]


if __name__ == "__main__":
    serve(FrameSocket(process.start_as_child(sys.argv[1:])), load)
