"""The processes of one branch, as the process that holds the stage sees them: a free one takes the next batch.

    a thread of the branch ──items──► branch process: the model that was loaded there ──results──► the thread

A process that dies is replaced, and its batch tried once more; where that kills the next one too, its requests fail. A death
from outside counts against no batch (`death`), but there is an end to those, too. A process ends with the one that started it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from multigpu_inference import log
from multigpu_inference.child_process import KEEP_MEMORY
from multigpu_inference.config import Settings
from multigpu_inference.engine import codec
from multigpu_inference.engine.death import Cause, OomKills, cause_of
from multigpu_inference.engine.process_pool import NO_GPU, threads
from multigpu_inference.errors import ModelError, Unavailable, Unprocessable, from_name
from multigpu_inference.ipc import FrameSocket, socket_pair
from multigpu_inference.messages import BranchFailure, StartFailed

_MODULE = "multigpu_inference.engine.branch_process"
_ROOT = Path(__file__).resolve().parents[2]
_GONE = (EOFError, OSError)
# Deaths of one batch: how many may be of its own doing, and how many from outside.
_OWN_DEATHS, _OTHER_DEATHS = 2, 4


class BranchProcesses:
    """Calls a branch's model in one of its processes, from as many threads as there are."""

    def __init__(self, name: str, load: Callable[[], Any], count: int, threads_each: int) -> None:
        """Start the processes; does not wait for them.

        Args:
            name: The branch's.
            load: Loads the model, in each process.
            count: Processes.
            threads_each: CPU threads that each computes with.

        Raises:
            ModelError: where `load` does not pickle, or would not be found by another process.
        """
        self._name = name
        begin = _pickled(name, load)
        timeout_s = Settings.from_env(os.environ).engine.startup_timeout_s
        processes = [_Process(f"{name}-{i}", begin, threads_each, timeout_s) for i in range(count)]
        # The one that was busy last is the next: its caches still hold what it needs.
        self._free = queue.LifoQueue[_Process]()
        for process in processes:
            process.start()
            self._free.put(process)
        self._processes = processes
        self._owner = os.getpid()
        self._closed = False
        self._oom_kills = OomKills()
        weakref.finalize(self, _end_all, processes, self._owner)

    def wait_until_loaded(self) -> None:
        """Wait for all models; `ModelError` where one cannot be loaded, or not within the start's time limit."""
        for process in self._processes:
            process.wait_until_loaded()

    def close(self) -> None:
        """End the processes, and refuse further calls."""
        self._closed = True
        _end_all(self._processes, self._owner)

    def __call__(self, items: Sequence[Any], /) -> Sequence[Any]:
        """Have one process turn items into as many results.

        Raises:
            Unprocessable: where it died, and the one that tried again died too.
            Unavailable: where processes were killed from outside, again and again.
            RuntimeError: what the model raised there, in words; errors that have an HTTP status come as they are.
        """
        if os.getpid() != self._owner:
            raise RuntimeError(f"the branch {self._name!r} belongs to another process: load the model after the fork")
        blobs = codec.encode(items)
        process = self._free.get()
        try:
            deaths = list[Cause]()
            while True:
                if self._closed:
                    raise RuntimeError(f"the branch {self._name!r} is closed")
                process.be_there()
                began = time.monotonic()
                try:
                    return _results(*process.ask(blobs))
                except _GONE:
                    code = process.end()
                if not self._closed:
                    process.start()  # so that it loads meanwhile, whoever it is for
                    deaths.append(self._say_why_it_died(code, began))
                    _give_up_after(deaths)
        finally:
            if self._closed:  # meanwhile, perhaps just before it was started again
                process.end()
            self._free.put(process)

    def _say_why_it_died(self, code: int | None, began: float) -> Cause:
        cause = cause_of(code, None, out_of_memory=self._oom_kills.since(began))
        log.event("branch_process_died", branch=self._name, exit_code=code, cause=cause)
        return cause


class _Process:
    """One of them: started, loaded, asked again and again, found dead, started again."""

    def __init__(self, name: str, begin: bytes, threads_each: int, timeout_s: float) -> None:
        self._name = name
        self._begin = begin
        self._timeout_s = timeout_s
        # Those of an installation have it anyway; a checkout that is used as it is has not.
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        self._environ = {"PYTHONPATH": path, **threads(threads_each), **NO_GPU, **KEEP_MEMORY}
        self._child: subprocess.Popen[bytes] | None = None
        self._socket: FrameSocket | None = None
        self._is_loaded = False
        self._give_up = 0.0

    def start(self) -> None:
        ours, theirs = socket_pair()
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno()), str(os.getpid()), self._name],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, **self._environ},
            )
        self._socket, self._is_loaded = FrameSocket(ours), False
        self._give_up = time.monotonic() + self._timeout_s
        with contextlib.suppress(OSError):  # it has ended already, which is found when it is waited for
            self._socket.send(sys.path, [self._begin])

    def wait_until_loaded(self) -> None:
        if self._is_loaded:
            return
        try:
            socket = self._connected()
            socket.settimeout(max(0.01, self._give_up - time.monotonic()))
            said, _ = socket.receive()
            socket.settimeout(None)
        except TimeoutError:
            said = StartFailed("it was not loaded in time")
        except _GONE:
            said = StartFailed("the process ended before it was loaded")
        if isinstance(said, StartFailed):
            self.end()
            raise ModelError(f"the branch {self._name.rpartition('-')[0]!r} cannot be loaded: {said.message}")
        self._is_loaded = True

    def be_there(self) -> None:
        """Start it again where it has ended, whoever ended it, and wait until it is loaded."""
        if self._child is None or self._child.poll() is not None:
            self.end()
            self.start()
        self.wait_until_loaded()

    def ask(self, blobs: Sequence[Any]) -> tuple[Any, list[Any]]:
        socket = self._connected()
        socket.send(None, blobs)
        return socket.receive()

    def _connected(self) -> FrameSocket:
        socket = self._socket
        if socket is None:  # ended by another thread
            raise EOFError
        return socket

    def end(self) -> int | None:
        """End it; the exit code that it had, or has now."""
        child, self._child = self._child, None
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()
        if child is None:
            return None
        child.kill()
        return child.wait()


def _give_up_after(deaths: Sequence[Cause]) -> None:
    from_outside = sum(cause.is_nobodys for cause in deaths)
    if len(deaths) - from_outside == _OWN_DEATHS:
        raise Unprocessable
    if from_outside == _OTHER_DEATHS:
        raise Unavailable


def _results(said: Any, blobs: Sequence[Any]) -> Sequence[Any]:
    if not isinstance(said, BranchFailure):
        results: Sequence[Any] = codec.decode(blobs)
        return results
    if said.kind:
        raise from_name(said.kind, said.message, said.status)
    error = MemoryError(said.message) if said.out_of_memory else RuntimeError(said.message)
    error.add_note(said.trace)
    raise error


def _pickled(name: str, load: Callable[[], Any]) -> bytes:
    function = getattr(load, "func", load)  # of a partial
    if getattr(function, "__module__", None) == "__main__":
        raise ModelError(f"the branch {name!r}: what loads its model must stand in a module that another process can import")
    try:
        return pickle.dumps(load)
    except Exception as error:
        raise ModelError(f"the branch {name!r}: what loads its model does not pickle: {error}") from error


def _end_all(processes: Sequence[_Process], owner: int) -> None:
    if os.getpid() == owner:  # and not a child that was forked
        for process in processes:
            process.end()
