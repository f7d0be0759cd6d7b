"""The engine's process: its socket for front-end workers, its word to the supervisor, its signals.

Run as `python -m multigpu_inference.engine.server FD PARENT_PID NAME RUN_DIR`. Front-end workers connect to
`RUN_DIR/engine.sock`. SIGTERM drains and ends with exit code 0; a second one, or the drain's limit, ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from multigpu_inference import log, process
from multigpu_inference.arena import Arena
from multigpu_inference.config import MAX_FRONT_END_WORKERS, Settings
from multigpu_inference.engine.engine import Engine
from multigpu_inference.engine.request_arena import RequestArena
from multigpu_inference.errors import StartupError
from multigpu_inference.ipc import Blob, FrameStream
from multigpu_inference.messages import (
    HEARTBEAT_S,
    NO_WORKER_LEFT,
    ArenaOpened,
    EngineReady,
    Heartbeat,
    Invocation,
    StartFailed,
)
from multigpu_inference.run_folder import ENGINE_SOCKET

# All front-end workers may connect at once; a connection beyond the backlog fails.
_BACKLOG = 2 * MAX_FRONT_END_WORKERS
_ACCEPT_AGAIN_S = 0.1
DRAIN_LIMIT_S = 20.0  # SageMaker kills 30 s after SIGTERM


async def serve(settings: Settings, supervisor: FrameStream, run_dir: Path) -> int:
    """Run the engine until it is told to stop, or has no worker left; the exit code."""
    stop = _stop_signals()
    engine = Engine(settings)
    starting = asyncio.create_task(engine.start())
    stopped = asyncio.create_task(stop.acquire())
    try:
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return 0
        starting.result()
    except StartupError as error:
        supervisor.send(StartFailed(str(error), error.exit_code))
        return error.exit_code
    finally:
        starting.cancel()
        await asyncio.wait([starting])

    connections = Connections(engine, run_dir / ENGINE_SOCKET)
    devices = {device for replica in engine.placement for device in replica}
    supervisor.send(EngineReady(len(engine.placement), len(devices), engine.capacity.front_end_workers))
    beating = asyncio.create_task(_beat(supervisor))
    lost = asyncio.create_task(engine.wait_lost())
    await asyncio.wait([stopped, lost], return_when=asyncio.FIRST_COMPLETED)
    if not stopped.done():
        log.event("no_worker_left")
    else:
        await _drain(engine, stop)
    beating.cancel()
    lost.cancel()
    await connections.close()
    await engine.stop()
    return 0 if stopped.done() else NO_WORKER_LEFT


async def _beat(supervisor: FrameStream) -> None:
    """Tell the supervisor that this loop is alive."""
    with contextlib.suppress(OSError):  # it has gone; the kernel ends this process as well
        while True:
            supervisor.send(Heartbeat())
            await asyncio.sleep(HEARTBEAT_S)


async def _drain(engine: Engine, stop: asyncio.Semaphore) -> None:
    """Finish what is in flight, unless a second signal or the limit comes first."""
    log.event("draining")
    drained = asyncio.create_task(engine.drain())
    again = asyncio.create_task(stop.acquire())
    await asyncio.wait([drained, again], timeout=DRAIN_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
    log.event("drained" if drained.done() else "drain_cut_short")
    again.cancel()
    drained.cancel()


def _stop_signals() -> asyncio.Semaphore:
    """A semaphore that each SIGTERM releases once."""
    stop = asyncio.Semaphore(0)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.release)
    return stop


class Connections:
    """The front end's connections. Each may have several requests in flight, each with an arena; all end when it does."""

    def __init__(self, engine: Engine, path: Path) -> None:
        """Listen on a socket file and answer with `engine`."""
        self._engine = engine
        self._open: set[asyncio.Task[None]] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.setblocking(False)
        self._listener.bind(str(path))
        self._listener.listen(_BACKLOG)
        self._accepting = asyncio.create_task(self._accept())

    async def close(self) -> None:
        """Take no new connections and end all that there are."""
        ending = [self._accepting, *self._open]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._listener)
            except OSError as error:  # out of descriptors, for one: who waits is taken later
                log.exception("connection_not_accepted", error)
                await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            connection = asyncio.create_task(self._serve(FrameStream(sock)))
            self._open.add(connection)
            connection.add_done_callback(self._open.discard)

    async def _serve(self, stream: FrameStream) -> None:
        """Read requests until the other side has gone, then give up on what it waited for."""
        requests = set[asyncio.Task[None]]()
        arenas = dict[int, RequestArena]()

        def take(message: Invocation | ArenaOpened, blobs: list[Any]) -> None:
            if isinstance(message, ArenaOpened):
                arenas[message.number] = RequestArena(Arena(blobs[0].take()))
                return
            request = asyncio.create_task(self._answer(stream, message, blobs[0], arenas))
            requests.add(request)
            request.add_done_callback(requests.discard)

        try:
            await stream.deliver(take)
        except (EOFError, OSError):
            pass
        finally:
            for request in requests:
                request.cancel()
            stream.close()
            await asyncio.gather(*requests, return_exceptions=True)
            for arena in arenas.values():
                arena.close()

    async def _answer(self, stream: FrameStream, invocation: Invocation, body: Blob, arenas: dict[int, RequestArena]) -> None:
        arena = arenas[invocation.arena]
        answer, answer_body = await self._engine.answer(invocation, body, arena)
        if not answer.arena_is_free:
            arenas.pop(invocation.arena).close()
        try:
            stream.send(answer, [answer_body])
        except OSError:
            log.event("client_gone", request_id=invocation.request_id)


def main() -> int:
    """Run the engine's process."""
    sock = process.start_as_child(sys.argv[1:4])

    async def run() -> int:
        return await serve(Settings.from_env(os.environ), FrameStream(sock), Path(sys.argv[4]))

    return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
