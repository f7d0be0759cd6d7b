"""What tests of several folders share."""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import psutil

T = TypeVar("T")

# Below the range from which the kernel takes the ports of outgoing connections, and below 32767, from which on
# multi-model-server refuses to start.
_PORTS = range(12_000, 32_000)


def wait_until(predicate: Callable[[], T], deadline_s: float) -> T:
    """Wait until `predicate` gives something true, and return it; fail after `deadline_s` seconds."""
    give_up = time.monotonic() + deadline_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > give_up:
            raise AssertionError(f"not true within {deadline_s:g} s: {getattr(predicate, '__name__', predicate)}")
        time.sleep(0.02)


def children_with(text: str) -> list[psutil.Process]:
    """This process's living children with a word in their command line."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if text in " ".join(child.cmdline()):
                found.append(child)
    return found


def free_port() -> int:
    """A port that nobody listens on now."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes, as on a machine that has no memory left for more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
