"""The container of a local endpoint: the image with docker, or its entry point in this environment.

Either is one child process whose output is the container's, which passes SIGTERM on and ends with the container's exit code.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType

from deploy_error import DeployError, Invalid, TimedOut, Unhealthy
from endpoint_log import cause, is_metrics, plain
from source_paths import ROOT

# As SageMaker: between SIGTERM and SIGKILL.
STOP_LIMIT_S = 30.0
# SageMaker has been seen to give a container no more, and has no setting for it.
_SHARED_MEMORY = "64m"
_PING_LIMIT_S = 2.0
_POLL_S = 0.2
# After /ping says 200, for the line to be in the log that says how many replicas there are.
_READY_LINE_S = 2.0
_LINES_SEARCHED = 1000
# Exit codes: the container's own for a setting that is not allowed; docker's for what it could not start.
_BAD_SETTING, _DOCKER = 2, (125, 126, 127)
# The container's role, where this shell has credentials.
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION")
_SETTINGS = ("MULTIGPU_", "SAGEMAKER_")
# The proxy's own port.
PORT_VARIABLE = "MULTIGPU_LOCAL_PORT"
_NOT_SETTINGS = (PORT_VARIABLE, "SAGEMAKER_BASE_DIR", "SAGEMAKER_BIND_TO_PORT")


@dataclass(frozen=True, slots=True)
class ContainerCommand:
    """How the container is started.

    Attributes:
        words: The child process.
        environment: Of the child process.
        port: The container listens there, on this machine.
        remove: What removes it where it does not stop; empty: to kill the child is enough.
    """

    words: tuple[str, ...]
    environment: Mapping[str, str]
    port: int
    remove: tuple[str, ...] = ()


def overrides(shell: Mapping[str, str]) -> dict[str, str]:
    """What this shell says of the container."""
    return {n: value for n, value in shell.items() if n.startswith(_SETTINGS) and n not in _NOT_SETTINGS and value.strip()}


def container_settings(settings: Mapping[str, str], shell: Mapping[str, str], port: int) -> dict[str, str]:
    """The container's environment: the deployment's, and over it what this shell says.

    So what suits the rented machine alone can be undone here: `MULTIGPU_DEVICES=cpu python deploy/create_endpoint.py --local`.
    """
    return {**settings, **overrides(shell), "SAGEMAKER_BIND_TO_PORT": str(port)}


def entry_point_command(base_dir: Path, settings: Mapping[str, str], shell: Mapping[str, str], port: int) -> ContainerCommand:
    """The container's entry point, with this interpreter and its packages.

    Args:
        base_dir: Stands for /opt/ml: the model is in its folder `model`.
        settings: The container's.
        shell: This process's environment.
        port: To serve on.
    """
    own = container_settings(settings, shell, port)
    environment = {**shell, **own, "SAGEMAKER_BASE_DIR": str(base_dir)}
    return ContainerCommand((sys.executable, str(ROOT / "container" / "entrypoint.py"), "serve"), environment, port)


def docker_command(
    image: str, base_dir: Path, settings: Mapping[str, str], shell: Mapping[str, str], port: int, gpus: bool, name: str
) -> ContainerCommand:
    """The image, as SageMaker runs it: the model read-only, little shared memory, `serve` as the argument.

    Args:
        image: By name or id.
        base_dir: Its folder `model` is mounted.
        settings: The container's.
        shell: This process's environment.
        port: To serve on.
        gpus: Whether this machine has some.
        name: For the container.
    """
    docker = docker_words(shell)
    # By name alone: values on a command line can be read by everybody on the machine.
    own = container_settings(settings, shell, port)
    names = [*own, *(variable for variable in _CREDENTIALS if shell.get(variable))]
    words = (
        *(*docker, "run", "--rm", "--name", name, f"--publish=127.0.0.1:{port}:{port}", "--shm-size", _SHARED_MEMORY),
        *(("--gpus", "all") if gpus else ()),
        *("-v", f"{base_dir / 'model'}:/opt/ml/model:ro"),
        *(word for variable in names for word in ("-e", variable)),
        *(image, "serve"),
    )
    return ContainerCommand(words, {**shell, **own}, port, (*docker, "rm", "-f", name))


def docker_words(shell: Mapping[str, str]) -> tuple[str, ...]:
    """The docker command; `DOCKER` names another than `docker`."""
    return tuple(shlex.split(shell.get("DOCKER", "").strip() or "docker"))


class LocalContainer:
    """The container, as a context: ready inside, stopped cleanly after."""

    def __init__(self, command: ContainerCommand, log: Path, start_limit_s: float, say: Callable[[str], None]) -> None:
        """Nothing is started yet.

        Args:
            command: What to start.
            log: Takes what the container prints.
            start_limit_s: Until /ping answers 200.
            say: Is told the container's events while it starts.
        """
        self._command = command
        self._log = log
        self._start_limit_s = start_limit_s
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LocalContainer:
        """Start it and wait until `/ping` answers 200.

        Raises:
            Invalid: a setting is not allowed, or docker cannot start the image.
            Unhealthy: it ends before it is ready.
            TimedOut: it is not ready in time.
        """
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    self._command.words,
                    env=dict(self._command.environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for us; the container is then stopped as SageMaker does it
                )
            except OSError as error:
                raise Invalid(f"{self._command.words[0]}: {error.strerror}") from error
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            with suppress(DeployError):
                self._stop(self._process)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop it; a stop that is not clean is an error of its own unless there is one already."""
        if self._process is None:
            return
        try:
            self._stop(self._process)
        except Unhealthy:
            if error is None:
                raise

    def replicas(self) -> int | None:
        """How many replicas it says to have; None where it does not say (an image of another make)."""
        deadline = time.monotonic() + _READY_LINE_S
        while True:
            for line in self._lines():
                with suppress(ValueError, TypeError, KeyError):
                    event = json.loads(line)
                    if event["event"] == "ready":
                        return int(event["replicas"])
            if time.monotonic() > deadline:
                return None
            time.sleep(_POLL_S)

    def wait(self) -> None:
        """Return never: serve until a signal interrupts.

        Raises:
            Unhealthy: it ends by itself.
        """
        if self._process is not None:
            code = self._process.wait()
            raise Unhealthy(f"the container ended by itself with exit code {code}{self._why()}")

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._start_limit_s
        with self._log.open(encoding="utf-8", errors="replace") as log:
            while True:
                # Asked before the log is read: what was logged on the way to being ready is then shown before the return.
                ready = answers_ping(self._command.port)
                for line in log:
                    if line.startswith("{") and not is_metrics(line) and '"event": "request"' not in line:
                        self._say(plain(line.rstrip()))
                if ready:
                    return
                code = process.poll()
                if code is not None:
                    kind = Invalid if code == _BAD_SETTING or (self._command.remove and code in _DOCKER) else Unhealthy
                    raise kind(f"the container ended with exit code {code}{self._why()}")
                if time.monotonic() > deadline:
                    raise TimedOut(f"the container was not ready within {self._start_limit_s:g} s{self._why()}")
                time.sleep(_POLL_S)

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            code: int | None = process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # Whatever is left of it, also when a second Ctrl-C ends the wait; after a clean stop, nothing.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if code is None and self._command.remove:
                with suppress(OSError, subprocess.TimeoutExpired):
                    subprocess.run(self._command.remove, capture_output=True, timeout=STOP_LIMIT_S)
        if code is None:
            raise Unhealthy(f"the container did not stop within {STOP_LIMIT_S:g} s of SIGTERM{self._why()}")
        if code != 0:
            raise Unhealthy(f"the container stopped with exit code {code}{self._why()}")

    def _why(self) -> str:
        """The line of the log that says why, or its end; and where it is."""
        lines = [line.strip() for line in deque(self._lines(), maxlen=_LINES_SEARCHED) if line.strip()]
        shown = cause(lines) or (plain(lines[-1]) if lines else "it has logged nothing")
        return f": {shown} (its log: {self._log})"

    def _lines(self) -> Iterator[str]:
        with self._log.open(encoding="utf-8", errors="replace") as log:
            yield from log


def answers_ping(port: int) -> bool:
    """Whether a container on this machine says that it is ready."""
    connection = HTTPConnection("127.0.0.1", port, timeout=_PING_LIMIT_S)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
