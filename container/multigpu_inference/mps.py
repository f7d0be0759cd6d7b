"""NVIDIA's Multi-Process Service: lets the processes that share a GPU compute at the same time instead of by turns.

    supervisor ──► nvidia-cuda-mps-control ──► its server ◄── replica workers, by CUDA_MPS_PIPE_DIRECTORY

Started by the supervisor before the engine, where `MULTIGPU_MPS=1` asks for it; ends with the container. What it says is
logged, and its end: replicas then fail one after another, and this is why. With ring placement two processes share each GPU,
with more replicas than GPUs as many as there are.

Source: NVIDIA, "Multi-Process Service", sections 4 and 5 (the control daemon, its environment and its pipes).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

from multigpu_inference import log, process
from multigpu_inference.child_process import Command
from multigpu_inference.errors import DeviceError
from multigpu_inference.unprivileged import User

_DAEMON = "nvidia-cuda-mps-control"
_START_S = 5.0
_LOOK_EVERY_S = 0.05
_LAST_WORDS_S = 0.3


class Mps:
    """The control daemon, and how CUDA programs find it."""

    def __init__(self, daemon: asyncio.subprocess.Process, environ: dict[str, str]) -> None:
        """Use `start`."""
        self._daemon = daemon
        self.environ = environ
        self._first_words = ""
        self._listening = asyncio.create_task(self._listen())
        self._watching: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, run_dir: Path, user: User | None = None) -> Mps:
        """Start the daemon with its pipes in the run folder, and wait until it takes clients.

        Args:
            run_dir: The run folder.
            user: Whose processes are its clients, and who runs it: it serves one user's at a time.

        Raises:
            DeviceError: where it is not in this container, or ends or says nothing.
        """
        program = shutil.which(_DAEMON)
        if program is None:
            raise DeviceError(
                f"MULTIGPU_MPS=1: there is no {_DAEMON} here. NVIDIA's container runtime brings it along with the driver where "
                "NVIDIA_DRIVER_CAPABILITIES has 'compute'; without MULTIGPU_MPS processes take turns on a GPU"
            )
        pipes = run_dir / "mps"
        pipes.mkdir(mode=0o700)
        if user is not None:
            os.chown(pipes, user.uid, user.gid)
        environ = {"CUDA_MPS_PIPE_DIRECTORY": str(pipes), "CUDA_MPS_LOG_DIRECTORY": str(pipes)}
        daemon = await asyncio.create_subprocess_exec(
            program, "-f",  # in the foreground, as a child that ends with its group
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            **Command("mps", "", environ=environ, user=user).start_options(),
        )  # fmt: skip
        started = cls(daemon, environ)
        try:
            async with asyncio.timeout(_START_S):
                await started._wait_ready(pipes / "control")
        except TimeoutError:
            await started.stop()
            raise DeviceError(f"MULTIGPU_MPS=1: {_DAEMON} was not ready within {_START_S:g} s") from None
        except BaseException:
            await started.stop()
            raise
        started._watching = asyncio.create_task(started._say_when_it_ends())
        return started

    async def stop(self) -> None:
        """End the daemon and its server."""
        tasks = [task for task in (self._watching, self._listening) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        process.kill_group(self._daemon.pid)
        await self._daemon.wait()

    async def _wait_ready(self, control: Path) -> None:
        """Wait for the pipe that the daemon makes when it listens."""
        while not control.exists():
            if self._daemon.returncode is not None:
                await asyncio.wait([self._listening], timeout=_LAST_WORDS_S)
                said = self._first_words or "no word"
                raise DeviceError(f"MULTIGPU_MPS=1: {_DAEMON} ended with code {self._daemon.returncode}: {said}")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _say_when_it_ends(self) -> None:
        # Its server has the pipe, too, and may outlive it: the end of what it says would not tell.
        while self._daemon.returncode is None:
            await asyncio.sleep(_LOOK_EVERY_S)
        log.event("process_ended", process="mps", exit_code=self._daemon.returncode)

    async def _listen(self) -> None:
        """Log what it says, so that it never waits for somebody to read it."""
        assert self._daemon.stderr is not None
        while True:
            line = b""
            with contextlib.suppress(ValueError):  # a line longer than any that is worth logging
                line = await self._daemon.stderr.readline()
                if not line:
                    return
            said = line.decode(errors="replace").strip()
            self._first_words = self._first_words or said
            if said:
                log.event("mps_said", message=said)
