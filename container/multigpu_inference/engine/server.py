"""The engine's process: its socket for the front end, its word to the supervisor, its signals.

Run as `python -m multigpu_inference.engine.server FD PARENT_PID NAME RUN_DIR`. The front end connects to `RUN_DIR/engine.sock`
(`connections`). SIGTERM drains and ends with exit code 0; a second one, or the drain's limit, ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from multigpu_inference import credentials, log, process
from multigpu_inference.config import Settings
from multigpu_inference.engine.connections import Connections
from multigpu_inference.engine.engine import Engine
from multigpu_inference.errors import StartupError
from multigpu_inference.ipc import FrameStream
from multigpu_inference.messages import HEARTBEAT_S, EngineReady, Heartbeat, StartFailed
from multigpu_inference.run_folder import ENGINE_SOCKET

_FLUSH_LIMIT_S = 0.5  # for the last answers to reach the front end
DRAIN_LIMIT_S = 20.0  # SageMaker kills 30 s after SIGTERM


async def serve(settings: Settings, supervisor: FrameStream, run_dir: Path) -> int:
    """Run the engine until it is told to stop, or has too few workers left; the exit code."""
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
    exit_code = 0
    if stopped.done():
        await _drain(engine, stop)
    else:
        exit_code = lost.result()
    beating.cancel()
    lost.cancel()
    await connections.flush(_FLUSH_LIMIT_S)
    await connections.close()
    await engine.stop()
    return exit_code


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


def main() -> int:
    """Run the engine's process."""
    sock = process.start_as_child(sys.argv[1:4])
    credentials.guard(os.environ)

    async def run() -> int:
        return await serve(Settings.from_env(os.environ), FrameStream(sock), Path(sys.argv[4]))

    return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
