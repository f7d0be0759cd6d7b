"""`serve`: the first process of the container. Starts the engine and the front end; watches both; drains; stops.

    requirements ──► engine, every replica loaded and warmed ──► multi-model-server ──► ready ──► SIGTERM: drain, stop
    HTTP front end ──► requirements ──► engine … ──► reached ──► ready ──► …

Multi-model-server is started only when the engine can answer, because it says "healthy" from its first moment. The HTTP front
end is started first: it says that the endpoint is starting.
Whichever of the two ends by itself takes the container with it, with an exit code of its own, so that SageMaker replaces it;
so does one that is there and does nothing any more (`watched_child`). No model code and no torch run here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from multigpu_inference import credentials, log, process
from multigpu_inference.child_process import Command, first_message, spawn
from multigpu_inference.config import HTTP, Settings
from multigpu_inference.errors import SettingsError, StartupError
from multigpu_inference.front_end_ping import FrontEndPing
from multigpu_inference.ipc import FrameStream
from multigpu_inference.messages import NO_WORKER_LEFT, TOO_FEW_REPLICAS, EngineReady
from multigpu_inference.mps import Mps
from multigpu_inference.requirements import install_requirements
from multigpu_inference.run_folder import FRONT_END_PARENT_PID, run_folder
from multigpu_inference.unprivileged import User, unprivileged_user
from multigpu_inference.watched_child import WatchedChild

_T = TypeVar("_T")

ENGINE, FRONT_END = "engine", "front-end"
ENGINE_DIED, FRONT_END_DIED = 4, 5  # exit codes; 2 and 3 are `StartupError`'s, 6 and 7 the engine's own
_REAP_EVERY_S = 1.0
# After the engine's last answer, multi-model-server still has to write it to its client; it says nothing of when it
# has.
_FLUSH_S = 0.5
_FRONT_END_START_S = 60.0
# All of it together within 25 s, even where both hang; SageMaker grants 30 s. The engine gives its requests 20 s of it.
_ENGINE_STOP_S = 21.0
_FRONT_END_STOP_S = 3.0
# Where it is to end at once: how long a process may take that has been told so, and how often it is told.
_AT_ONCE_S, _TELL_AGAIN_S = 3.0, 0.2
_ORPHANS_END_S = 2.0


class Supervisor:
    """The engine and the front end, from start to stop."""

    def __init__(self, settings: Settings, run_dir: Path) -> None:
        """Nothing is started yet."""
        self._settings = settings
        self._run_dir = run_dir
        self._user: User | None = None  # whom the children run as, where that is another
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._mps: Mps | None = None
        self._stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()

    async def run(self) -> int:
        """Serve until told to stop, or until something that cannot be replaced has ended; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        reaper = asyncio.create_task(self._reap())
        serving = asyncio.create_task(self._serve())
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                return serving.result()
            serving.cancel()  # from here on an end of the engine is as it should be
            await self._drain()
            return 0
        finally:
            for task in (reaper, serving, stopped):
                task.cancel()
            await asyncio.gather(reaper, serving, stopped, return_exceptions=True)
            await self._end_all()

    async def _serve(self) -> int:
        """Start both; then wait for one of them to end, which it should not: the exit code for that."""
        try:
            engine, front_end = await self._start_both()
            await _unless_ended([engine, front_end], asyncio.Event().wait())
        except _ChildEnded as ended:
            code = ended.child.tell()
            if ended.child.name == FRONT_END:
                return FRONT_END_DIED
            return code if code in (NO_WORKER_LEFT, TOO_FEW_REPLICAS) else ENGINE_DIED
        raise AssertionError("nobody sets that event")

    async def _start_both(self) -> tuple[WatchedChild, WatchedChild]:
        """Engine and front end, so that requests can be answered; `_ChildEnded` where one ends meanwhile."""
        started = time.monotonic()
        self._user = await unprivileged_user(self._settings, self._run_dir)
        front_end: WatchedChild | None = None
        if self._settings.front_end.kind == HTTP:
            front_end = await self._start_http_front_end()
        else:
            _refuse_taken_port(self._settings.front_end.port)
        engine, ready = await _unless_ended([front_end] if front_end else [], self._start_engine())
        if front_end is None:
            front_end = await _unless_ended([engine], self._start_model_server(ready))
        await _unless_ended([engine, front_end], _within(_FRONT_END_START_S, front_end.reached))
        log.event(
            "ready",
            port=self._settings.front_end.port,
            replicas=ready.num_replicas,
            devices=ready.num_devices,
            seconds=round(time.monotonic() - started, 1),
        )
        return engine, front_end

    async def _start_engine(self) -> tuple[WatchedChild, EngineReady]:
        """Install what the script needs, then start the engine, and wait until it can answer."""
        timeout_s = self._settings.engine.startup_timeout_s
        await install_requirements(self._settings.model.code_dir / "requirements.txt", self._run_dir, timeout_s)
        if self._settings.engine.mps:
            self._mps = await Mps.start(self._run_dir, self._user)
        environ = {} if self._mps is None else self._mps.environ
        module, arguments = "multigpu_inference.engine.server", (str(self._run_dir),)
        command = Command(ENGINE, module, arguments, environ, user=self._user, credentials=True)
        child, stream = await self._spawn(command)
        # The engine has its own deadline for each worker and says which one was late; this is for the engine itself.
        ready = await first_message(command, child, stream, asyncio.get_running_loop().time() + 2 * timeout_s + 10)
        assert isinstance(ready, EngineReady)
        return WatchedChild(ENGINE, child, stream=stream), ready

    async def _start_http_front_end(self) -> WatchedChild:
        """Start the HTTP front end, and wait until it listens."""
        command = Command(FRONT_END, "multigpu_inference.frontend.http.server", (str(self._run_dir),), user=self._user)
        child, stream = await self._spawn(command)
        await first_message(command, child, stream, asyncio.get_running_loop().time() + _FRONT_END_START_S)
        return WatchedChild(FRONT_END, child, stream=stream, reached=False)

    async def _spawn(self, command: Command) -> tuple[asyncio.subprocess.Process, FrameStream]:
        child, stream = await spawn(command)
        self._children[command.name] = child
        return child, stream

    async def _start_model_server(self, ready: EngineReady) -> WatchedChild:
        """Start multi-model-server's launcher, and wait until it listens and its workers' parent has loaded our handler."""
        workers = self._settings.front_end.workers or ready.front_end_workers
        command = Command(FRONT_END, "multigpu_inference.frontend.model_server", user=self._user)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", command.module, str(self._run_dir), str(os.getpid()), str(workers),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # its own group, which Java and its workers stay in
            **command.start_options(),
        )  # fmt: skip
        self._children[FRONT_END] = child
        deadline = time.monotonic() + _FRONT_END_START_S
        loaded = self._run_dir / FRONT_END_PARENT_PID
        while not (loaded.exists() and _listens(self._settings.front_end.port)):
            if child.returncode is not None:
                raise StartupError(f"the front end ended with exit code {child.returncode} while it started")
            if time.monotonic() > deadline:
                raise StartupError(f"the front end did not answer within {_FRONT_END_START_S:g} s")
            await asyncio.sleep(0.1)
        return WatchedChild(FRONT_END, child, ping=FrontEndPing(self._settings.front_end.port))

    async def _drain(self) -> None:
        """Let the engine finish what it has, then the front end write it out."""
        log.event("stopping")
        if await self._terminate(ENGINE, _ENGINE_STOP_S) and self._settings.front_end.kind != HTTP:
            await asyncio.sleep(_FLUSH_S)

    async def _end_all(self) -> None:
        """End the front end in order, then whatever is left of both by force."""
        await self._terminate(FRONT_END, _FRONT_END_STOP_S)
        for child in self._children.values():
            process.kill_group(child.pid)
            await child.wait()
        if self._mps is not None:
            await self._mps.stop()
        # What they had started is ours now, and ends with its group or its parent; it must not outlive us.
        deadline = time.monotonic() + _ORPHANS_END_S
        while process.reap_orphans() and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        log.event("stopped")

    async def _terminate(self, name: str, limit_s: float) -> bool:
        """Ask a child to end and wait for it, for a time; whether there was one to ask."""
        child = self._children.get(name)
        if child is None or child.returncode is not None:
            return False
        child.terminate()
        ended, at_once = asyncio.create_task(child.wait()), asyncio.create_task(self._stop_at_once.wait())
        await asyncio.wait([ended, at_once], timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if at_once.done():
            deadline = time.monotonic() + _AT_ONCE_S
            while not ended.done() and time.monotonic() < deadline:
                child.terminate()  # two signals that come together are one: it is told until it has heard the second
                await asyncio.wait([ended], timeout=_TELL_AGAIN_S)
        for task in (ended, at_once):
            task.cancel()
        return True

    def _on_signal(self) -> None:
        """The first signal begins the drain, a second one ends it."""
        if self._stop.is_set():
            self._stop_at_once.set()
        self._stop.set()

    async def _reap(self) -> None:
        """As the first process, collect those that nobody else waits for.

        That is told by time: an ended child of this process's own is collected at once, by whoever started it.
        """
        before = set[int]()
        while True:
            await asyncio.sleep(_REAP_EVERY_S)
            ended = process.ended_children()
            for pid in before & ended:
                process.collect(pid)
            before = ended


async def _within(limit_s: float, reached: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(limit_s):
            await reached.wait()
    except TimeoutError:
        raise StartupError(f"the front end did not reach the engine within {limit_s:g} s") from None


class _ChildEnded(Exception):
    """A process that was to stay has ended."""

    def __init__(self, child: WatchedChild) -> None:
        super().__init__()
        self.child = child


async def _unless_ended(children: Sequence[WatchedChild], work: Coroutine[Any, Any, _T]) -> _T:
    """Wait for some work, unless one of the processes ends first: `_ChildEnded`."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task, *(child.ended for child in children)], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise _ChildEnded(next(child for child in children if child.ended.done()))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _refuse_taken_port(port: int) -> None:
    """Say so before minutes of loading; multi-model-server itself says it in a Java trace."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError as error:
            raise StartupError(f"port {port} cannot be used: {error.strerror}") from None


def main() -> int:
    """Run `serve`; the container's exit code."""
    log.set_source("supervisor")
    process.adopt_orphans()
    credentials.guard(os.environ)
    try:
        settings = Settings.from_env(os.environ)
        with run_folder() as run_dir:
            return asyncio.run(Supervisor(settings, run_dir).run())
    except StartupError as error:
        log.event("bad_settings" if isinstance(error, SettingsError) else "start_failed", message=str(error))
        return error.exit_code
