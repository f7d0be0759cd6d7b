"""A container in poorer surroundings: other mounts, few descriptors, a log that somebody may stop reading."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.endpoint import Endpoint


def after(endpoint: Endpoint, *commands: str) -> Endpoint:
    """Let a shell run these commands before it becomes the container."""
    endpoint.command = ["sh", "-c", " && ".join([*commands, 'exec "$@"']), "sh", *endpoint.command]
    return endpoint


def with_mounts(endpoint: Endpoint, *commands: str) -> Endpoint:
    """The same in mounts of its own, which nobody else sees; the test is skipped where that is not allowed."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mounts of one's own here")
    after(endpoint, *commands)
    endpoint.command = ["unshare", "-m", "--propagation", "private", *endpoint.command]
    return endpoint


def tmpfs(path: Path, size: str) -> str:
    """The command that mounts an empty file system there."""
    return f"mount -t tmpfs -o size={size} tmpfs {shlex.quote(str(path))}"


def seen_by(endpoint: Endpoint, path: Path) -> Path:
    """A path as the container sees it."""
    assert endpoint.process is not None
    return Path(f"/proc/{endpoint.process.pid}/root{path}")


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    full = folder / "full"
    with full.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    with pytest.raises(OSError, match="No space left"):
        (folder / "more").write_bytes(bytes(4096))
    return full


class LogReader:
    """Reads what a container logs, through a pipe, into its log; until it is told to stop."""

    def __init__(self, endpoint: Endpoint, pipe: Path) -> None:
        os.mkfifo(pipe)
        self._endpoint = endpoint
        self._pipe = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(self._pipe, True)
        self._reads = threading.Event()
        self._reads.set()
        after(endpoint, f"exec >{shlex.quote(str(pipe))} 2>&1")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Read for the length of the block, and then to the end."""
        thread = threading.Thread(target=self._read)
        thread.start()
        try:
            yield
        finally:
            self._reads.set()
            thread.join()
            os.close(self._pipe)

    def stop(self) -> None:
        """Take nothing more, and keep the pipe."""
        self._reads.clear()

    def go_on(self) -> None:
        self._reads.set()

    def _read(self) -> None:
        seen = False
        with self._endpoint.log.open("ab", buffering=0) as log:
            while True:
                self._reads.wait()
                data = os.read(self._pipe, 4096)
                seen = seen or bool(data)
                if data:
                    log.write(data)
                elif seen or self._endpoint.exit_code() is not None:
                    return
