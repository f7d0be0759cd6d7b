"""Runs the container's own entry point on this machine, as `docker run IMAGE serve` would.

What it prints goes to a log file; the events in it that are not about a single request are passed on as progress.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import requests

from demo_error import DemoError
from demo_model import ROOT
from progress import Progress

START_LIMIT_S = 300.0
# What SageMaker grants between SIGTERM and SIGKILL.
STOP_LIMIT_S = 30.0
_PING_INTERVAL_S = 0.2
_LOG_LINES_SHOWN = 15
# Below those that the kernel gives to outgoing connections, and below 32768, from which on multi-model-server does not start.
_FREE_PORTS = range(12_000, 32_000)


class Endpoint:
    """The serving container's processes, as a context: ready inside, stopped cleanly after.

    Attributes:
        url: Where it answers.
    """

    def __init__(
        self, base_dir: Path, port: int, log_path: Path, progress: Progress, defaults: Mapping[str, str] | None = None
    ) -> None:
        """Nothing is started yet.

        Args:
            base_dir: Stands for /opt/ml: the model is in its folder `model`.
            port: To serve on.
            log_path: Takes what the container prints.
            progress: Is told what happens.
            defaults: Settings of the container, each where the environment has none.
        """
        self.url = f"http://127.0.0.1:{port}"
        self._base_dir = base_dir
        self._port = port
        self._log_path = log_path
        self._progress = progress
        self._defaults = dict(defaults or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Endpoint:
        """Start it and wait until `/ping` answers 200."""
        refuse_busy_port(self._port)
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "container" / "entrypoint.py"), "serve"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for us; the container is then stopped with SIGTERM, as SageMaker does it.
                start_new_session=True,
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            with suppress(DemoError):
                self._stop(self._process)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop it; a stop that is not clean is an error of its own unless there is one already."""
        if self._process is None:
            return
        try:
            self._stop(self._process)
        except DemoError:
            if error is None:
                raise

    def wait(self) -> None:
        """Return never: serve until a signal interrupts, or fail when the container ends by itself."""
        if self._process is not None:
            code = self._process.wait()
            raise DemoError(f"the endpoint ended by itself with exit code {code}{self._log_end()}")

    def _environment(self) -> dict[str, str]:
        environment = {
            **os.environ,
            "SAGEMAKER_BASE_DIR": str(self._base_dir),
            "SAGEMAKER_BIND_TO_PORT": str(self._port),
        }
        for name, value in self._defaults.items():
            # A blank one is none to the container.
            environment[name] = environment.get(name, "").strip() or value
        # On GPUs the container's own default is right: one replica for each. On a CPU that is one in all, which would
        # leave nothing to take turns.
        if "MULTIGPU_NUM_REPLICAS" not in environment and not cuda_visible():
            environment["MULTIGPU_NUM_REPLICAS"] = "2"
        return environment

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        with self._log_path.open(encoding="utf-8", errors="replace") as log:
            while True:
                # Asked before the log is read: what was logged on the way to being ready is then shown before the return.
                ready = self._answers_ping()
                for line in log:
                    if (event := describe_event(line)) is not None:
                        self._progress.say(event)
                if ready:
                    return
                self._progress.wait("waiting for the endpoint")
                code = process.poll()
                if code is not None:
                    raise DemoError(self._why_not_started() or f"the endpoint ended with exit code {code}{self._log_end()}")
                if time.monotonic() > deadline:
                    raise DemoError(f"the endpoint was not ready within {START_LIMIT_S:.0f} s{self._log_end()}")
                time.sleep(_PING_INTERVAL_S)

    def _answers_ping(self) -> bool:
        try:
            with requests.Session() as session:
                session.trust_env = False  # a proxy has no business between this process and its own machine
                return session.get(f"{self.url}/ping", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            code: int | None = process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # Whatever is left of its processes, also when a second Ctrl-C ends the wait; after a clean stop, nothing.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if code is None:
            raise DemoError(f"the endpoint did not stop within {STOP_LIMIT_S:.0f} s of SIGTERM{self._log_end()}")
        if code != 0:
            raise DemoError(f"the endpoint stopped with exit code {code}{self._log_end()}")

    def _why_not_started(self) -> str | None:
        """The container's own word for why it did not start, where it had one."""
        for line in reversed(self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()):
            if '"start_failed"' in line or '"bad_settings"' in line:
                with suppress(ValueError, KeyError):
                    return f"the endpoint did not start: {json.loads(line)['message']} (its log: {self._log_path})"
        return None

    def _log_end(self) -> str:
        lines = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
        return "".join(f"\n  | {line}" for line in [*lines, f"(all of it: {self._log_path})"])


def describe_event(line: str) -> str | None:
    """Turn a line of the container's log into words; None for lines about single requests and for other output."""
    try:
        event = json.loads(line)
        name, source = event.pop("event"), event.pop("source")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if name == "request":
        return None
    details = [f"{key}={value}" for key, value in event.items() if key not in ("time", "trace") and value != ""]
    return " ".join([f"{source}:", str(name).replace("_", " "), *details])


def free_port() -> int:
    """A port of this machine that nothing listens on, of those that multi-model-server takes: it refuses high ones."""
    for port in random.sample(_FREE_PORTS, 100):
        with suppress(DemoError):
            refuse_busy_port(port)
            return port
    raise DemoError(f"no free port from {_FREE_PORTS[0]} to {_FREE_PORTS[-1]}: set SAGEMAKER_BIND_TO_PORT to one")


def cuda_visible() -> bool:
    """Whether the container would find a GPU, asked without loading torch."""
    if os.environ.get("MULTIGPU_DEVICES", "").lower() == "cpu":
        return False
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return False
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def refuse_busy_port(port: int) -> None:
    """Say so where a port cannot be served on."""
    with socket.socket() as probe:
        # As the server itself: connections of an earlier run that still linger do not keep the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError as error:
            raise DemoError(
                f"port {port} cannot be served on ({error.strerror}): set SAGEMAKER_BIND_TO_PORT to a free one"
            ) from error
