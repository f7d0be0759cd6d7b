"""A profiler's process as the planner sees it: started as a worker is, asked, and killed when user code in it hangs.

Every message counts as a sign of life; user code that is silent for longer than a request may take has hung.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from multigpu_inference import process
from multigpu_inference.child_process import Command, first_message, spawn
from multigpu_inference.errors import StartupError
from multigpu_inference.ipc import Buffer, FrameStream
from multigpu_inference.messages import Message
from multigpu_inference.planner.asked import Progress


class ProfilerProcess:
    """A ready profiler."""

    def __init__(self, name: str, stream: FrameStream, silence_s: float, say: Callable[[str], None]) -> None:
        """Use `started_profiler`."""
        self._name, self._stream, self._silence_s, self._say = name, stream, silence_s, say

    async def ask(self, message: Message, blobs: Sequence[Buffer]) -> tuple[Any, list[Any]]:
        """Have something measured.

        Raises:
            StartupError: where the process ends, or is silent for too long.
        """
        doing = "its work"
        try:
            self._stream.send(message, blobs)
            while True:
                async with asyncio.timeout(self._silence_s):
                    said, out = await self._stream.receive()
                if not isinstance(said, Progress):
                    return said, out
                doing = said.text
                self._say(doing)
        except TimeoutError:
            raise StartupError(f"{self._name}: {doing} did not end within {self._silence_s:g} s") from None
        except (EOFError, OSError):
            raise StartupError(f"{self._name}: the process ended during {doing}") from None


@asynccontextmanager
async def started_profiler(
    command: Command, startup_timeout_s: float, silence_s: float, say: Callable[[str], None]
) -> AsyncIterator[ProfilerProcess]:
    """Start a profiler and wait until it has loaded; it is killed at the end of the block, with all that it started.

    Args:
        command: How to start it.
        startup_timeout_s: How long loading may take.
        silence_s: How long one call of user code may take.
        say: Takes what is being measured, in words.

    Raises:
        StartupError: where it does not load.
    """
    child, stream = await spawn(command)
    try:
        deadline = asyncio.get_running_loop().time() + startup_timeout_s
        await first_message(command, child, stream, deadline)
        yield ProfilerProcess(command.name, stream, silence_s, say)
    finally:
        stream.close()
        process.kill_group(child.pid)
        await child.wait()
