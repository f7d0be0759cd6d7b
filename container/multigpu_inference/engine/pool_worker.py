"""A pool worker: `input_fn` and `output_fn`, on one core, with no GPU to be seen.

The engine sets the environment before this process starts: `CUDA_VISIBLE_DEVICES` empty, so that a script written for
one GPU builds CPU tensors by itself, and one thread per library.
"""

from __future__ import annotations

import os
import sys

from multigpu_inference import process
from multigpu_inference.config import Settings
from multigpu_inference.context import Context
from multigpu_inference.engine import worker
from multigpu_inference.engine.script_runner import ScriptRunner
from multigpu_inference.ipc import FrameSocket
from multigpu_inference.user_module import UserModule


def load() -> worker.Work:
    """Import the script."""
    settings = Settings.from_env(os.environ).model
    context = Context(system_properties={"model_dir": str(settings.model_dir), "gpu_id": None})
    return worker.Work(ScriptRunner(UserModule.load(settings), context).run)


if __name__ == "__main__":
    worker.serve(FrameSocket(process.start_as_child(sys.argv[1:])), load)
