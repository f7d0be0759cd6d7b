"""The front end of multi-model-server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import Any

import psutil

from integration.frontend.front_end import FrontEnd


class ModelServerFrontEnd(FrontEnd):
    """The launcher, real multi-model-server, and its workers."""

    def __init__(self, workers: int = 2, user: int | None = None, **environment: str) -> None:
        super().__init__(user, **environment)
        self.workers = workers

    def launch(self, **options: Any) -> subprocess.Popen[bytes]:
        arguments = [str(self.run_dir), str(os.getpid()), str(self.workers)]
        return subprocess.Popen([sys.executable, "-m", "multigpu_inference.frontend.model_server", *arguments], **options)

    def serving(self) -> set[int]:
        """The front-end workers that run."""
        with contextlib.suppress(psutil.Error, FileNotFoundError):
            workers = psutil.Process(self.parent_pid()).children()
            return {worker.pid for worker in workers if worker.status() != psutil.STATUS_ZOMBIE}
        return set()

    def is_complete(self) -> bool:
        return len(self.serving()) == self.workers

    def java(self) -> psutil.Process:
        """The server."""
        return next(each for each in self.descendants() if "com.amazonaws.ml.mms.ModelServer" in each.cmdline())

    def parent_pid(self) -> int:
        """The workers' parent, once the handler is loaded."""
        return int(self.run_dir.joinpath("front-end-parent.pid").read_text())
