"""Starts multi-model-server, watches it, ends with it.

    supervisor ──► this process ──► Java (HTTP) ──► Python parent ──► front-end workers

A process of its own, started by the supervisor as `python -m multigpu_inference.frontend.model_server RUN_DIR PARENT_PID
WORKERS`, once the engine is ready: multi-model-server's `/ping` is 200 whatever happens behind it. Java's end, and the end of
the Python parent, which multi-model-server never replaces, end this process with a code that is not 0; SIGTERM ends all of
them with 0. No process outlives it, no file or socket is made outside the run folder.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import resource
import shutil
import signal
import site
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

import multigpu_inference
from multigpu_inference import log, process
from multigpu_inference.config import MAX_FRONT_END_WORKERS, Settings
from multigpu_inference.errors import StartupError
from multigpu_inference.proc_stat import children_of, is_stopped
from multigpu_inference.run_folder import FRONT_END_PARENT_PID, RUN_DIR_VARIABLE

_HANDLER = "multigpu_inference.frontend.handler_service"

# Requests that wait in multi-model-server, where nobody sees them: few. But its workers take theirs from that queue one after
# another, even where all are free, and what a burst brings beyond its size is refused: with 16, some requests at 32 in flight.
_JOB_QUEUE_SIZE_AT_LEAST = 16
# By how much multi-model-server waits longer than the worker does, which waits longer than the engine.
_TIMEOUT_MARGIN_S = 5
# Java's: for clients' connections and its own files, and for each worker.
_OTHER_DESCRIPTORS, _DESCRIPTORS_EACH = 64, 4
_SOCKET_PATH_LIMIT = 107  # bytes of a Unix socket's path, in Linux
_START_LIMIT_S = 50.0
_STOP_LIMIT_S = 5.0
_POLL_S = 0.25
_LOOK_EVERY_S, _STOPPED_LOOKS = 1.0, 2

# Written before sagemaker-inference's own lines. The last one: a process that measures the machine, every minute otherwise.
_PROPERTIES = """\
enable_envvars_config=true
decode_input_request=false
metric_time_interval=86400
"""


class ModelServer:
    """Multi-model-server as a child process.

    Args:
        run_dir: The container's run folder.
        settings: All settings.
        workers: How many front-end workers there shall be.
    """

    def __init__(self, run_dir: Path, settings: Settings, workers: int) -> None:
        """Only remember; `run` starts it."""
        self._run_dir = run_dir
        self._settings = settings
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # Java allows itself all of them
        self._workers = min(workers, max_workers(descriptors))
        if self._workers < min(workers, MAX_FRONT_END_WORKERS):
            log.event("few_descriptors", message=f"{descriptors} open files are enough for {self._workers} front-end workers")
        self._java: psutil.Process | None = None
        self._stop_by: float | None = None
        self._look_at = 0.0  # when to look for processes that are stopped

    def run(self) -> int:
        """Start multi-model-server and stay until it has ended, with everything that belongs to it.

        Returns:
            The exit code: 0 where SIGTERM asked for the end, 1 where it came by itself.

        Raises:
            StartupError: It cannot be started.
        """
        signal.signal(signal.SIGTERM, self._on_sigterm)
        check(self._run_dir)
        prepare(self._run_dir)
        os.environ.update(environment(self._settings, self._run_dir, self._workers, os.environ))
        module = _sagemaker_model_server(self._run_dir)
        module._retry_retrieve_mms_server_process = self._wait_for_java
        # Ours is installed already; theirs for SIGCHLD would take the children's exit codes away.
        module._add_sigterm_handler = module._add_sigchild_handler = lambda *_: None
        try:
            module.start_model_server(handler_service=_HANDLER)
        except _StopAsked:
            return 0
        finally:
            _end_descendants()
        if self._stop_by is not None:
            return 0
        log.event("front_end_ended", exit_code=self._java.wait() if self._java else None)
        return 1

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_by = time.monotonic() + _STOP_LIMIT_S
        if self._java is not None:
            _send(self._java, signal.SIGTERM)

    def _wait_for_java(self, _limit_s: float) -> psutil.Process:
        """Find the server that `multi-model-server --start` leaves behind, and have it watched.

        Takes the place of a search through all processes of the machine, which gives up where a second server runs.
        """
        give_up = time.monotonic() + _START_LIMIT_S
        while time.monotonic() < give_up:
            if self._stop_by is not None:
                raise _StopAsked
            descendants = _alive(psutil.Process().children(recursive=True))
            self._java = next((each for each in descendants if _is_java(each)), None)
            if self._java is not None:
                if self._stop_by is not None:  # the signal came between the two lines above
                    _send(self._java, signal.SIGTERM)
                threading.Thread(target=self._watch, args=(self._java,), daemon=True).start()
                return self._java
            if not descendants:
                break
            time.sleep(0.02)
        raise StartupError("multi-model-server did not start; the lines before this one say why")

    def _watch(self, java: psutil.Process) -> None:
        """End Java where its Python parent has gone or never came, where one of both is stopped, or does not end in time."""
        stopped = StoppedProcesses()
        start_by = time.monotonic() + _START_LIMIT_S
        parent: psutil.Process | None = None
        while java.is_running():
            process.reap_orphans({java.pid})
            if self._stop_by is not None:
                if time.monotonic() > self._stop_by:
                    _send(java, signal.SIGKILL)
            elif parent is None:
                # Java listens only after the parent has started: where that is so and there is none, it has gone again.
                listens = _management_socket(self._run_dir).exists()
                parent = _python_parent(java)
                if parent is None and (listens or time.monotonic() > start_by):
                    return self._end(java)
            elif not _alive([parent]):
                return self._end(java)
            else:
                self._look_for_stopped(stopped, java, parent)
            time.sleep(_POLL_S)

    def _look_for_stopped(self, stopped: StoppedProcesses, java: psutil.Process, parent: psutil.Process) -> None:
        """End what a signal has stopped: a worker, in whose place multi-model-server starts another, or all of it."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        workers = children_of(parent.pid)
        for pid in stopped.look([java.pid, parent.pid, *workers]):
            log.event("front_end_stopped", pid=pid, worker=pid in workers)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid if pid in workers else java.pid, signal.SIGKILL)

    def _end(self, java: psutil.Process) -> None:
        loaded = (self._run_dir / FRONT_END_PARENT_PID).exists()
        log.event("front_end_parent_died", loaded=loaded)
        _send(java, signal.SIGKILL)


class StoppedProcesses:
    """Finds processes that a signal has stopped: by several looks in a row, as some are continued at once."""

    def __init__(self, is_stopped: Callable[[int], bool] = is_stopped, looks: int = _STOPPED_LOOKS) -> None:
        """Begin with none.

        Args:
            is_stopped: Whether a process is stopped now.
            looks: How many looks in a row find it so.
        """
        self._is_stopped = is_stopped
        self._looks = looks
        self._found: dict[int, int] = {}

    def look(self, pids: Iterable[int]) -> list[int]:
        """Those that have been found stopped often enough by now."""
        self._found = {pid: self._found.get(pid, 0) + 1 for pid in pids if self._is_stopped(pid)}
        return [pid for pid, count in self._found.items() if count == self._looks]


def max_workers(descriptors: int) -> int:
    """How many front-end workers a limit of open files allows. For one that finds none left, Java tries again for ever."""
    return max(1, min(MAX_FRONT_END_WORKERS, (descriptors - _OTHER_DESCRIPTORS) // _DESCRIPTORS_EACH))


class _StopAsked(Exception):
    """SIGTERM came before there was a server to pass it on to."""


def check(run_dir: Path) -> None:
    """Refuse a run folder that multi-model-server would fail in later, with a less clear message."""
    if len(os.fsencode(_own_folder(run_dir) / ".mms.sock.9000")) > _SOCKET_PATH_LIMIT:
        raise StartupError(f"the run folder's path is too long for Unix sockets: {run_dir}")


def prepare(run_dir: Path) -> None:
    """Make the front end's own folder anew: what an unclean stop left in it would stop the start."""
    folder = _own_folder(run_dir)
    (run_dir / FRONT_END_PARENT_PID).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    _model_folder(run_dir).mkdir()
    (folder / "defaults.properties").write_text(_PROPERTIES)


def environment(settings: Settings, run_dir: Path, workers: int, inherited: Mapping[str, str]) -> dict[str, str]:
    """What multi-model-server and its workers are told, on top of the environment that there is."""
    folder = _own_folder(run_dir)
    timeout_s = math.ceil(settings.engine.request_timeout_s) + _TIMEOUT_MARGIN_S
    package_root = str(Path(multigpu_inference.__file__).parents[1])
    python_path = [path for path in inherited.get("PYTHONPATH", "").split(os.pathsep) if path]
    if package_root not in (*python_path, *site.getsitepackages()):
        python_path.append(package_root)
    return {
        RUN_DIR_VARIABLE: str(run_dir),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}",
        "PYTHONPATH": os.pathsep.join(python_path),
        "TMPDIR": str(folder),  # of the `multi-model-server` command: its pid file
        "TEMP": str(folder),  # of Java: sockets, pipes, large parts of forms
        "MMS_JOB_QUEUE_SIZE": str(max(_JOB_QUEUE_SIZE_AT_LEAST, workers)),
        # Otherwise on the inference port, where anybody could delete the model or register another one.
        "MMS_MANAGEMENT_ADDRESS": f"unix:{_management_socket(run_dir)}",
        "MMS_MAX_RESPONSE_SIZE": str(settings.front_end.max_payload_bytes),
        "MMS_NUMBER_OF_GPU": "0",
        "MMS_PRELOAD_MODEL": "true",
        "SAGEMAKER_BIND_TO_PORT": str(settings.front_end.port),
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(settings.front_end.max_payload_bytes >> 20),
        "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": str(timeout_s),
        # Without its memory-mapped counters, which make a file in /tmp and a pause with each slow write to it.
        "SAGEMAKER_MODEL_SERVER_VMARGS": f"-XX:-UsePerfData {settings.front_end.vmargs}",
        "SAGEMAKER_MODEL_SERVER_WORKERS": str(workers),
        "SAGEMAKER_MULTI_MODEL": "false",
    }


def _own_folder(run_dir: Path) -> Path:
    return run_dir / "front-end"


def _management_socket(run_dir: Path) -> Path:
    return _own_folder(run_dir) / "management.sock"


def _model_folder(run_dir: Path) -> Path:
    """An empty folder that multi-model-server takes for the model's, so that its workers cannot import a user's files."""
    return _own_folder(run_dir) / "model"


def _sagemaker_model_server(run_dir: Path) -> Any:
    """sagemaker-inference's launcher, pointed into the run folder.

    Imported here and not above, because it reads the environment when it is imported.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pkg_resources announces its end
        from sagemaker_inference import environment as sagemaker_environment
        from sagemaker_inference import model_server
    logging.getLogger("sagemaker-inference").setLevel(logging.WARNING)
    folder = _own_folder(run_dir)
    sagemaker_environment.model_dir = str(_model_folder(run_dir))
    sagemaker_environment.code_dir = str(_model_folder(run_dir))
    model_server.MMS_CONFIG_FILE = str(folder / "mms.properties")
    model_server.DEFAULT_MMS_CONFIG_FILE = str(folder / "defaults.properties")
    model_server.DEFAULT_MMS_LOG_FILE = str(Path(__file__).with_name("log4j2.xml"))
    model_server.REQUIREMENTS_PATH = str(folder / "installed-by-the-supervisor")
    return model_server


def _python_parent(java: psutil.Process) -> psutil.Process | None:
    """The process that has loaded the handler and is forked for each worker."""
    with contextlib.suppress(psutil.Error):
        for child in java.children():
            if any(word.endswith("model_service_worker.py") for word in _command(child)):
                return child
    return None


def _is_java(candidate: psutil.Process) -> bool:
    return "com.amazonaws.ml.mms.ModelServer" in _command(candidate)


def _command(candidate: psutil.Process) -> list[str]:
    """A process's command line; of one that has just ended nothing."""
    try:
        return candidate.cmdline()
    except psutil.Error:
        return []


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that run: an ended child that nobody has waited for yet is not alive."""
    alive = []
    for each in processes:
        with contextlib.suppress(psutil.Error):
            if each.is_running() and each.status() != psutil.STATUS_ZOMBIE:
                alive.append(each)
    return alive


def _send(receiver: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        receiver.send_signal(number)


def _end_descendants() -> None:
    """End what Java leaves behind: the workers' parent waits for connections for ever."""
    give_up = time.monotonic() + _STOP_LIMIT_S
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < give_up:
        for each in left:
            _send(each, signal.SIGKILL)
        psutil.wait_procs(left, timeout=1.0)


def main(arguments: list[str]) -> int:
    """Take the place that the supervisor has given: RUN_DIR PARENT_PID WORKERS."""
    run_dir, parent_pid, workers = Path(arguments[0]).absolute(), int(arguments[1]), int(arguments[2])
    process.become("front-end", parent_pid, when_parent_dies=signal.SIGTERM)
    process.adopt_orphans()
    os.umask(0o077)  # Java's sockets and files are for this user alone
    try:
        return ModelServer(run_dir, Settings.from_env(os.environ), workers).run()
    except StartupError as error:
        log.event("front_end_start_failed", message=str(error))
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
