"""Reads the user's script before anything is placed: how many stages it has, which functions, which sample.

A process of its own that sees no GPU, because importing the script runs it, and the engine must not import torch.
"""

from __future__ import annotations

import os
import sys

from multigpu_inference import process
from multigpu_inference.config import Settings
from multigpu_inference.engine import worker
from multigpu_inference.errors import ScriptImportError, StartupError
from multigpu_inference.ipc import FrameSocket
from multigpu_inference.messages import ScriptInfo
from multigpu_inference.user_module import UserModule


def main() -> None:
    """Send the engine a `ScriptInfo`, or `StartFailed` where the script breaks its contract."""
    engine = FrameSocket(process.start_as_child(sys.argv[1:]))
    settings = Settings.from_env(os.environ).model
    try:
        engine.send(UserModule.load(settings).info())
    except ScriptImportError as error:
        # A script may need a GPU to be imported; a replica worker, which has one, finds out whether it does.
        engine.send(ScriptInfo(import_error=str(error)))
    except StartupError as error:
        worker.answer_start_failure(engine, error)


if __name__ == "__main__":
    main()
