"""The server that the workload `noop` is compared with, as a context."""

from __future__ import annotations

import http.client
import os
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from bench.child import Child, free_port
from bench.device_time import DeviceSeconds
from bench.workload import ROOT

_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 10.0


class Baseline:
    """Multi-model-server with a handler that returns at once.

    Attributes:
        pid: Its first process.
        url: Where it takes requests.
    """

    def __init__(self, workers: int, log: Path) -> None:
        """Nothing is started yet.

        Args:
            workers: As many as the container's front end has.
            log: Takes what it prints.
        """
        self._workers = workers
        self._log = log
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self._child: Child | None = None
        self.pid = 0
        self.url = ""

    def __enter__(self) -> Baseline:
        """Start it and wait for its first answer."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/invocations"
        command = [sys.executable, "-P", "-m", "bench.baseline_server", self._folder.name, str(os.getpid()), str(self._workers)]
        environment = {
            "SAGEMAKER_BIND_TO_PORT": str(port),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        }
        self._child = Child("the server to compare with", command, environment, self._log)
        self.pid = self._child.pid
        try:
            self._child.wait_until(self._answers, _START_LIMIT_S)
            self._child.wait_for_front_end(self._workers)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop it."""
        self._end()

    def device_seconds(self) -> DeviceSeconds:
        """It has no devices."""
        return {}

    def advice(self) -> str:
        """It has none."""
        return ""

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", urlsplit(self.url).port, timeout=5)
        try:
            connection.request("POST", "/invocations", b"x", {"Content-Type": "application/octet-stream"})
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def _end(self) -> None:
        if self._child is not None:
            self._child.stop(_STOP_LIMIT_S)
        self._folder.cleanup()
