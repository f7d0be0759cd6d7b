"""A branch process: one copy of a branch's model on the CPU, called batch by batch, until who started it has gone.

    what loads the model ──► WorkerReady ──► items ──► results … ──► the socket ends

Its environment is set before it starts: no GPU to be seen, and as many CPU threads as it is to compute with.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from multigpu_inference import process
from multigpu_inference.engine import codec, worker
from multigpu_inference.engine.device_error import DeviceErrorKind, device_error_kind
from multigpu_inference.errors import ModelError, ServingError, name_of
from multigpu_inference.ipc import FrameSocket
from multigpu_inference.messages import BranchFailure, WorkerReady
from multigpu_inference.one_line import one_line


def main(arguments: Sequence[str]) -> None:
    """Run one: `FD PARENT_PID NAME`."""
    owner = FrameSocket(process.start_as_child(arguments))
    started = time.perf_counter()
    try:
        call = _load(*owner.receive())
    except BaseException as error:  # user code may raise what is no Exception
        worker.answer_start_failure(owner, error)
        return
    owner.send(WorkerReady(os.getpid(), (time.perf_counter() - started) * 1e3))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            _, blobs = owner.receive()
            owner.send(*_answer(call, blobs))


def _load(path: list[str], blobs: Sequence[Any]) -> Callable[[Any], Any]:
    """Load the model as the process that holds the stage would: with its modules at hand."""
    sys.path[:] = path
    try:
        call = pickle.loads(blobs[0])()
    except BaseException as error:
        raise ModelError(one_line(error)) from error
    if not callable(call):
        raise ModelError(f"what loads it returned {type(call).__name__}, which cannot be called")
    return call  # type: ignore[no-any-return]


def _answer(call: Callable[[Any], Any], blobs: Sequence[Any]) -> tuple[BranchFailure | None, Sequence[Any]]:
    """What the model makes of a batch. A function of its own, so that nothing keeps the last batch while it waits."""
    torch = sys.modules.get("torch")
    try:
        with torch.no_grad() if torch is not None else contextlib.nullcontext():
            return None, codec.encode(list(call(codec.decode(blobs))))
    except ServingError as error:
        return BranchFailure(name_of(error), error.message, error.status), []
    except BaseException as error:
        trace = "".join(traceback.format_exception(error))
        no_memory = device_error_kind(error) is DeviceErrorKind.OUT_OF_MEMORY
        return BranchFailure("", one_line(error), trace=trace, out_of_memory=no_memory), []


if __name__ == "__main__":
    main(sys.argv[1:])
