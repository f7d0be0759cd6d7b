"""Starting a process of ours: a fresh interpreter with one end of a socket pair, and the first thing that it says.

    supervisor ──spawn──► HTTP front end
               └─spawn──► engine ──spawn──► probes, pool workers, replica workers

Every child is run as `python -m MODULE FD PARENT_PID NAME …` and begins with `process.start_as_child`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from multigpu_inference import process
from multigpu_inference.credentials import withheld
from multigpu_inference.errors import StartupError
from multigpu_inference.ipc import FrameStream, socket_pair
from multigpu_inference.messages import Message, StartFailed
from multigpu_inference.unprivileged import User

# How long what an ended process had still said is waited for, and an exit after its socket has closed.
LAST_WORDS_S = 0.3
# An image's buffers are large, and made anew for each request. The C library would give each back to the kernel and have it
# faulted in again, page by page: some 900 faults an image. (It takes no threshold above 32 MB.)
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "1073741824", "MALLOC_TOP_PAD_": "67108864"}


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a process.

    Attributes:
        name: In `ps` and in the log, such as `replica-0`.
        module: The module that is run.
        arguments: What follows its socket, its parent and its name.
        environ: Variables set for this process, beside those of the one that starts it.
        user: Whom it runs as; None: as the one that starts it.
        credentials: Whether it is given the AWS credentials that there are.
    """

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    user: User | None = None
    credentials: bool = False

    def start_options(self) -> dict[str, Any]:
        """What `create_subprocess_exec` is to be told of its environment and its rights."""
        of_user = self.user.environ if self.user is not None else {}
        environ = {**os.environ, **of_user, **self.environ}
        options: dict[str, Any] = {"env": environ if self.credentials else withheld(environ)}
        if self.user is not None:
            options |= {"user": self.user.uid, "group": self.user.gid, "extra_groups": self.user.groups}
        return options


async def spawn(command: Command) -> tuple[asyncio.subprocess.Process, FrameStream]:
    """Start a process of ours with one end of a socket pair; a fresh interpreter, never a fork."""
    ours, theirs = socket_pair()
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", command.module, str(theirs.fileno()), str(os.getpid()), command.name,
            *command.arguments,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,  # its own group: what user code starts ends with it
            **command.start_options(),
        )  # fmt: skip
    except OSError as error:
        ours.close()
        raise StartupError(f"{command.name} cannot be started: {error.strerror}") from error
    finally:
        theirs.close()
    return child, FrameStream(ours)


async def first_message(command: Command, child: asyncio.subprocess.Process, stream: FrameStream, deadline: float) -> Message:
    """What a started process says first.

    Raises:
        StartupError: where that is a failure, nothing comes by the deadline, or the process ends without a word.
    """
    said, ended = asyncio.create_task(stream.receive()), asyncio.create_task(child.wait())
    try:
        async with asyncio.timeout_at(deadline):
            # Its end too: something that it started may hold its socket open.
            await asyncio.wait([said, ended], return_when=asyncio.FIRST_COMPLETED)
            if not said.done():
                await asyncio.wait([said], timeout=LAST_WORDS_S)
        if not said.done():
            raise EOFError
        message, _ = said.result()
    except TimeoutError:
        raise StartupError(f"{command.name} was not ready in time") from None
    except (EOFError, OSError):
        raise StartupError(f"{command.name} ended before it was ready") from None
    finally:
        said.cancel()
        ended.cancel()
    if isinstance(message, StartFailed):
        failure = StartupError(message.message)
        failure.exit_code = message.exit_code
        raise failure
    return message


async def ask(command: Command, deadline: float) -> Message:
    """Start a process that has one thing to say, and hear it; `StartupError` as `first_message`."""
    child, stream = await spawn(command)
    try:
        return await first_message(command, child, stream, deadline)
    finally:
        stream.close()
        process.kill_group(child.pid)
        await child.wait()
