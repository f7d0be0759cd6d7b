"""The whole serving container on this machine, started by its own entry point."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from bench.bench_error import BenchError
from bench.child import Child, free_port
from bench.container_log import ServedRequest, events, served_requests
from bench.device_time import DeviceSeconds, read_advice, read_device_seconds, read_gpu_utilization
from bench.setup import HTTP
from bench.workload import ROOT

_START_LIMIT_S = 240.0
_STOP_LIMIT_S = 25.0


class Container:
    """A context: ready inside, stopped after.

    Attributes:
        pid: Its first process.
        url: Where it takes requests over HTTP.
    """

    def __init__(self, base_dir: Path, settings: Mapping[str, str], log: Path) -> None:
        """Nothing is started yet.

        Args:
            base_dir: Stands for /opt/ml.
            settings: Environment variables of the container.
            log: Takes what it prints.
        """
        self._base_dir = base_dir
        self._settings = dict(settings)
        self._log = log
        self._temporary = Path(tempfile.mkdtemp(prefix="bench-"))  # short: socket paths have 107 bytes at most
        self._child: Child | None = None
        self._port = 0
        self.pid = 0
        self.url = ""

    def __enter__(self) -> Container:
        """Start it and wait until it says that it is ready."""
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/invocations"
        environment = {
            "SAGEMAKER_BASE_DIR": str(self._base_dir),
            "SAGEMAKER_BIND_TO_PORT": str(self._port),
            "TMPDIR": str(self._temporary),
            **self._settings,
        }
        command = [sys.executable, str(ROOT / "container" / "entrypoint.py"), "serve"]
        self._child = Child("the container", command, environment, self._log)
        self.pid = self._child.pid
        try:
            self._child.wait_until(lambda: self._event("ready") is not None, _START_LIMIT_S)
            if not self._has_http_front_end:
                self._child.wait_for_front_end(self.front_end_workers)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop it."""
        self._end()

    @property
    def engine_socket(self) -> str:
        """The path of the socket that front-end workers connect to."""
        found = list(self._temporary.glob("multigpu-*/engine.sock"))
        if len(found) != 1:
            raise BenchError(f"the container has {len(found)} engine sockets below {self._temporary}; expected is one")
        return str(found[0])

    @property
    def front_end_workers(self) -> int:
        """How many there are: as many as were asked for, or as the engine planned."""
        asked = self._settings.get("SAGEMAKER_MODEL_SERVER_WORKERS")
        return int(asked or str((self._event("plan") or {}).get("front_end_workers", 1)))

    @property
    def admitted(self) -> int:
        """How many requests its engine works on at a time; more wait."""
        return int(str((self._event("plan") or {}).get("admitted", 1)))

    def check(self) -> None:
        """`BenchError` where it has ended by itself."""
        if self._child is not None:
            self._child.check()

    def served(self, since: float) -> list[ServedRequest]:
        """The requests answered since a moment of the epoch."""
        with self._log.open(errors="replace") as lines:
            return [request for request in served_requests(lines) if request.time >= since]

    def device_seconds(self) -> DeviceSeconds:
        """What its devices have done since it started; empty where its front end has no page of metrics."""
        return read_device_seconds(self.url) if self._has_http_front_end else {}

    def gpu_utilization(self) -> list[float]:
        """What the driver says of each GPU just now; empty without GPUs, or without a page of metrics."""
        return read_gpu_utilization(self.url) if self._has_http_front_end else []

    def advice(self) -> str:
        """What it would change; "" where its front end has no page of metrics."""
        return read_advice(self.url) if self._has_http_front_end else ""

    @property
    def _has_http_front_end(self) -> bool:
        return self._settings.get("MULTIGPU_FRONT_END") == HTTP

    def _event(self, name: str) -> dict[str, object] | None:
        with self._log.open(errors="replace") as lines:
            return next((event for event in events(lines) if event["event"] == name), None)

    def _end(self) -> None:
        if self._child is not None:
            self._child.stop(_STOP_LIMIT_S)
        shutil.rmtree(self._temporary, ignore_errors=True)
