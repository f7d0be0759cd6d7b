"""A replica worker: one copy of the model on its own devices, `model_fn` once and then `predict_fn` for each request.

The engine sets the environment before this process starts: `CUDA_VISIBLE_DEVICES` holds this replica's devices only, so
the first of them is `cuda:0` here, and the thread count of the CPU libraries. `model_fn` runs once per process, on the
thread that runs `predict_fn`; where the model is made of stages, `predict_fn` runs on one thread for each request instead,
so that the stages overlap and have something to make batches of.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from multigpu_inference import log, process
from multigpu_inference.arena import Arena
from multigpu_inference.config import Settings
from multigpu_inference.context import Context
from multigpu_inference.engine import worker
from multigpu_inference.engine.branches import Branches
from multigpu_inference.engine.pinned import PinnedArenas, clear_last_error
from multigpu_inference.engine.script_runner import ScriptRunner
from multigpu_inference.engine.stage import Stage
from multigpu_inference.engine.trial import run_trial
from multigpu_inference.errors import DeviceError, ModelError
from multigpu_inference.ipc import Buffer, FrameSocket
from multigpu_inference.messages import Result, Task
from multigpu_inference.one_line import one_line
from multigpu_inference.user_module import UserModule


def load(replica_id: int, num_replicas: int, devices: tuple[str, ...], in_flight: int) -> worker.Work:
    """Take the devices, import the script, load the model.

    Args:
        replica_id: This replica's number, from 0.
        num_replicas: How many there are.
        devices: One per stage, as this process sees them.
        in_flight: Requests that it may hold where its model is made of stages.
    """
    _initialise_cuda(devices)
    all_settings = Settings.from_env(os.environ)
    settings, streams = all_settings.model, all_settings.engine.streams_per_stage
    on_gpu = next((int(d.removeprefix("cuda:")) for d in devices if d.startswith("cuda:")), None)
    properties = {"model_dir": str(settings.model_dir), "gpu_id": on_gpu}
    context = Context(devices, replica_id, num_replicas, properties)
    script = UserModule.load(settings)
    model = _load_model(script, context)
    if streams > 1 and not _has_stages(model):
        raise ModelError(
            f"MULTIGPU_STREAMS_PER_STAGE={streams}: model_fn returned a model without stages, whose predict_fn is called for "
            "one request at a time; allowed is 1, or a model made of stages"
        )
    _name_branches(model, in_flight, streams)
    runner = ScriptRunner(script, context, model, devices[0])

    def run(task: Task, blobs: Sequence[Buffer]) -> tuple[Result, list[Buffer]]:
        return run_trial(runner, task, blobs) if task.trial else runner.run(task, blobs)

    return worker.Work(run, in_flight if _has_stages(model) else 1, _pin() if on_gpu is not None else worker.no_preparation)


def _pin() -> Callable[[Arena], None]:
    import torch

    return PinnedArenas(torch.cuda.cudart(), clear_last_error).pin


def _has_stages(model: Any) -> bool:
    """Whether a model is a chain of stages, which any number of threads may call; other models are not asked to bear that."""
    stages = getattr(model, "stages", None)
    return isinstance(stages, Sequence) and len(stages) > 0 and all(isinstance(stage, Stage) for stage in stages)


def _name_branches(model: Any, in_flight: int, streams: int) -> None:
    """Say which branches there are, and which of their threads or processes will never have anything to do."""
    for stage in getattr(model, "stages", None) or ():
        if not isinstance(stage, Branches):
            continue
        at_a_time = {name: branch.threads or streams for name, branch in stage.branches.items()}
        log.event("branches", at_a_time=at_a_time)
        for name, count in at_a_time.items():
            if count > in_flight:
                log.event(
                    "branch_is_too_wide",
                    branch=name,
                    message=f"it works on {count} batches at a time, and a replica has {in_flight} requests at most: more come "
                    "with a larger MULTIGPU_MAX_BATCH_SIZE or MULTIGPU_STREAMS_PER_STAGE",
                )


def _load_model(script: UserModule, context: Context) -> Any:
    model = script.load_model(context)
    stages, devices = getattr(model, "stages", None), context.devices
    if isinstance(stages, Sequence) and len(stages) != len(devices):
        raise ModelError(
            f"model_fn returned a model with {len(stages)} stages on replica {context.replica_id}, but STAGES is {len(devices)}"
        )
    return model


def _initialise_cuda(devices: tuple[str, ...]) -> None:
    """Fix the placement before the script can: CUDA reads `CUDA_VISIBLE_DEVICES` once, when it is initialised."""
    expected = len({d for d in devices if d.startswith("cuda:")})
    if not expected:
        return
    import torch

    try:
        torch.cuda.init()
    except Exception as error:
        raise DeviceError(f"CUDA cannot be initialised for {', '.join(devices)}: {one_line(error)}") from error
    if torch.cuda.device_count() != expected:
        raise DeviceError(f"{expected} GPUs are to be visible to this replica, CUDA sees {torch.cuda.device_count()}")


def main(arguments: Sequence[str]) -> None:
    """Run a worker: `FD PARENT_PID NAME REPLICA_ID NUM_REPLICAS DEVICE,DEVICE IN_FLIGHT`."""
    engine = FrameSocket(process.start_as_child(arguments[:3]))
    replica_id, num_replicas, devices = int(arguments[3]), int(arguments[4]), tuple(arguments[5].split(","))
    worker.serve(engine, lambda: load(replica_id, num_replicas, devices, int(arguments[6])))


if __name__ == "__main__":
    main(sys.argv[1:])
