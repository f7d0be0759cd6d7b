"""The HTTP front end's process.

    supervisor ──► this process ──► uvicorn, `app` ──► engine's socket

Run as `python -m multigpu_inference.frontend.http.server FD PARENT_PID NAME RUN_DIR`, before the engine is ready: until then
`/ping` says 503. It tells the supervisor that it listens, that it has reached the engine, and every second that it is alive.
SIGTERM lets the requests in flight finish and ends with exit code 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import cast

import uvicorn

from multigpu_inference import log, process
from multigpu_inference.config import Settings
from multigpu_inference.errors import StartupError
from multigpu_inference.frontend.http.app import make_app
from multigpu_inference.frontend.http.connection import IDLE_LIMIT_S, Connection, max_connections, telling
from multigpu_inference.frontend.http.engine_link import EngineLink
from multigpu_inference.frontend.http.invocations import refusal_at_once
from multigpu_inference.frontend.request import ENGINE_GRACE_S
from multigpu_inference.ipc import FrameStream
from multigpu_inference.messages import HEARTBEAT_S, EngineReached, Heartbeat, Listening, StartFailed
from multigpu_inference.run_folder import ENGINE_SOCKET

_BACKLOG = 2048
# How long requests in flight, and clients that take their answers slowly, are waited for at the end.
_DRAIN_LIMIT_S = 2
_LOOK_EVERY_S = 1.0


async def serve(settings: Settings, supervisor: FrameStream, run_dir: Path) -> int:
    """Serve until SIGTERM; the exit code."""
    try:
        listener = _listen(settings.front_end.port)
    except StartupError as error:
        supervisor.send(StartFailed(str(error), error.exit_code))
        return error.exit_code
    engine = EngineLink(str(run_dir / ENGINE_SOCKET), ENGINE_GRACE_S)
    config = uvicorn.Config(
        make_app(engine, settings),
        http=telling(
            engine.refused,
            max_connections(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
            partial(refusal_at_once, engine),
        ),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=int(IDLE_LIMIT_S),
        timeout_graceful_shutdown=_DRAIN_LIMIT_S,
    )
    server = uvicorn.Server(config)
    tasks = [
        asyncio.create_task(engine.run()),
        asyncio.create_task(_tell(supervisor, engine)),
        asyncio.create_task(_close_overdue(server, engine)),
    ]
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return 0


def _listen(port: int) -> socket.socket:
    # The protocol must be named: asyncio switches Nagle's algorithm off for connections that say they are TCP, and only those.
    # With it an answer's body waits 40 ms for the client to acknowledge the head.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("0.0.0.0", port))
    except OSError as error:
        listener.close()
        raise StartupError(f"port {port} cannot be used: {error.strerror}") from None
    listener.listen(_BACKLOG)
    return listener


async def _tell(supervisor: FrameStream, engine: EngineLink) -> None:
    """Tell the supervisor how far this process is, and then that it is alive."""
    with contextlib.suppress(OSError):  # it has gone; the kernel ends this process as well
        supervisor.send(Listening())
        reached = asyncio.create_task(engine.reached.wait())
        while True:
            await asyncio.wait([reached], timeout=HEARTBEAT_S)
            if reached.done():
                break
            supervisor.send(Heartbeat())
        supervisor.send(EngineReached())
        while True:
            supervisor.send(Heartbeat())
            await asyncio.sleep(HEARTBEAT_S)


async def _close_overdue(server: uvicorn.Server, engine: EngineLink) -> None:
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        now = time.monotonic()
        for connection in list(server.server_state.connections):
            cast(Connection, connection).close_overdue(now, draining=engine.draining)


class _ToLog(logging.Handler):
    """Brings what uvicorn has to say into our log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if record.exc_info and record.exc_info[1] is not None:
            log.exception("http_server_error", record.exc_info[1], reason=record.getMessage().strip())
        else:
            log.event("http_server", message=record.getMessage())


def main() -> int:
    """Run the front end's process."""
    sock = process.start_as_child(sys.argv[1:4])
    process.keep_small_memory()  # it receives in pieces of 256 KB, and answers wait for clients that are slow
    # Uvicorn catches it while it serves, and raises it once more when it has ended: then there is nobody left to tell.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for name in ("uvicorn.error", "python_multipart"):  # of what strangers send, which they warn of, the metrics tell
        logging.getLogger(name).addHandler(_ToLog())
        logging.getLogger(name).setLevel(logging.ERROR)

    async def run() -> int:
        return await serve(Settings.from_env(os.environ), FrameStream(sock), Path(sys.argv[4]))

    return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
