"""A front end in a run folder of its own, with real multi-model-server behind real sockets."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import requests

import multigpu_inference
from integration.frontend.fake_engine import FakeEngine
from support import free_port, wait_until

CONTAINER = Path(multigpu_inference.__file__).parents[1]
START_S, STOP_S = 30.0, 10.0


class FrontEnd:
    """Starts and stops the launcher as the supervisor does."""

    def __init__(self, workers: int = 2, user: int | None = None, **environment: str) -> None:
        self.workers = workers
        self.user = user
        # Not pytest's folder: it is too deep for a Unix socket's path, and other users cannot enter it.
        self.run_dir = Path(tempfile.mkdtemp(prefix="fe-"))
        self.log = self.run_dir / "log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.engine = FakeEngine(self.run_dir / "engine.sock")
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(CONTAINER),
            "SAGEMAKER_BIND_TO_PORT": str(self.port),
            "SAGEMAKER_MODEL_SERVER_VMARGS": "-Xmx1g -XX:+UseParallelGC -XX:TieredStopAtLevel=1",
            "MULTIGPU_REQUEST_TIMEOUT_S": "3",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> FrontEnd:
        """Start the fake engine and the launcher, and wait for neither."""
        self.engine.start()
        if self.user is not None:
            os.chown(self.run_dir, self.user, self.user)
        as_user = {} if self.user is None else {"user": self.user, "group": self.user, "extra_groups": []}
        arguments = [str(self.run_dir), str(os.getpid()), str(self.workers)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "multigpu_inference.frontend.model_server", *arguments],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                **as_user,  # type: ignore[call-overload]
            )
        return self

    def ready(self) -> FrontEnd:
        """Wait until all workers are there."""
        wait_until(lambda: self._answers_ping() and len(self.worker_pids()) == self.workers, START_S)
        return self

    def _answers_ping(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"ended with {self.process.poll()}: {self.log.read_text()}"
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.url}/ping", timeout=5).status_code == 200
        return False

    def post(
        self, content_type: str | None, body: bytes | str = b"", timeout_s: float = 20, **headers: str
    ) -> requests.Response:
        """POST /invocations; underscores in names of headers stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type is not None:
            named["Content-Type"] = content_type
        return requests.post(f"{self.url}/invocations", data=body, headers=named, timeout=timeout_s)

    def exit_code(self, within_s: float) -> int:
        """Wait for the launcher to end by itself."""
        assert self.process is not None
        return self.process.wait(within_s)

    def stop(self) -> int:
        """SIGTERM, and wait for the end."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(STOP_S)

    def clean_up(self) -> None:
        """Whatever a test has left."""
        self.engine.stop()
        if self.process is not None:
            left = self.descendants()
            self.process.kill()
            self.process.wait()
            for each in left:
                with contextlib.suppress(psutil.Error):
                    each.kill()
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def descendants(self) -> list[psutil.Process]:
        """All processes of the front end but the launcher."""
        assert self.process is not None
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def java(self) -> psutil.Process:
        """The server."""
        return next(each for each in self.descendants() if "com.amazonaws.ml.mms.ModelServer" in each.cmdline())

    def parent_pid(self) -> int:
        """The workers' parent, once the handler is loaded."""
        return int(self.run_dir.joinpath("front-end-parent.pid").read_text())

    def worker_pids(self) -> set[int]:
        """The front-end workers that run."""
        with contextlib.suppress(psutil.Error, FileNotFoundError):
            workers = psutil.Process(self.parent_pid()).children()
            return {worker.pid for worker in workers if worker.status() != psutil.STATUS_ZOMBIE}
        return set()


def gone(processes: list[psutil.Process]) -> bool:
    """Whether none of them runs."""
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)
