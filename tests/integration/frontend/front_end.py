"""A front end in a run folder of its own, behind real sockets, with a `FakeEngine`: what both kinds have in common."""

from __future__ import annotations

import abc
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

import psutil
import requests

import multigpu_inference
from integration.frontend.fake_engine import FakeEngine
from support import free_port, wait_until

CONTAINER = Path(multigpu_inference.__file__).parents[1]
START_S, STOP_S = 30.0, 10.0


class FrontEnd(abc.ABC):
    """Starts and stops its first process as the supervisor does."""

    def __init__(self, user: int | None = None, **environment: str) -> None:
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

    @abc.abstractmethod
    def launch(self, **options: Any) -> subprocess.Popen[bytes]:
        """Start the first process with these options of `Popen`."""

    @abc.abstractmethod
    def serving(self) -> set[int]:
        """The processes that requests go through, by their ids."""

    @abc.abstractmethod
    def is_complete(self) -> bool:
        """Whether all of them are there."""

    def start(self) -> Self:
        """Start the fake engine and the front end, and wait for neither."""
        self.engine.start()
        return self.start_alone()

    def start_alone(self) -> Self:
        """Start the front end without an engine."""
        if self.user is not None:
            os.chown(self.run_dir, self.user, self.user)
        as_user = {} if self.user is None else {"user": self.user, "group": self.user, "extra_groups": []}
        with self.log.open("ab") as log:
            self.process = self.launch(env=self.environment, stdout=log, stderr=subprocess.STDOUT, cwd="/", **as_user)
        return self

    def ready(self) -> Self:
        """Wait until it serves."""
        wait_until(lambda: self.ping() == 200 and self.is_complete(), START_S)
        return self

    def ping(self) -> int | None:
        """The status of `/ping`; None where nobody answers."""
        assert self.process is not None
        assert self.process.poll() is None, f"ended with {self.process.poll()}: {self.log.read_text()}"
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.url}/ping", timeout=5).status_code
        return None

    def post(
        self, content_type: str | None, body: bytes | str = b"", timeout_s: float = 20, **headers: str
    ) -> requests.Response:
        """POST /invocations; underscores in names of headers stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type is not None:
            named["Content-Type"] = content_type
        return requests.post(f"{self.url}/invocations", data=body, headers=named, timeout=timeout_s)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of the log about one kind of event."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def exit_code(self, within_s: float) -> int:
        """Wait for it to end by itself."""
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

    def processes(self) -> list[psutil.Process]:
        """All of its processes, the first one included."""
        assert self.process is not None
        return [psutil.Process(self.process.pid), *self.descendants()]

    def descendants(self) -> list[psutil.Process]:
        """All of its processes but the first."""
        assert self.process is not None
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


def gone(processes: list[psutil.Process]) -> bool:
    """Whether none of them runs."""
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)
