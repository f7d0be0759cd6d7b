"""How long a fetch may still take: its own limit, and for how long somebody waits for it. Runs in the fetch process."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeAlias

from multigpu_inference.errors import BadRequest, DeadlineExceeded, Unavailable

SecondsLeft: TypeAlias = Callable[[], float]
LOOK_EVERY_S = 0.2  # for a client that has gone, which nothing else would tell


def forever() -> float:
    """The seconds left where nobody counts them."""
    return math.inf


def refuse_if_late(seconds_left: SecondsLeft) -> None:
    """DeadlineExceeded where nobody waits any more."""
    if seconds_left() <= 0:
        raise DeadlineExceeded("there was no time left to fetch what 'url' points to")


class Watch:
    """Shuts the sockets that were opened under it once the time is over.

    Libraries bound each wait for a socket, not their sum: a server that sends its headers byte by byte would never time
    out. A socket that is shut wakes whoever waits for it.
    """

    def __init__(self, timeout_s: float, seconds_left: SecondsLeft = forever) -> None:
        """Begin to count.

        Args:
            timeout_s: seconds for all that is done under this watch.
            seconds_left: for how many seconds somebody waits for it, which may be 0 at any time.
        """
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._seconds_left = seconds_left
        self._sockets: list[socket.socket] = []
        self._is_over = False
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> Self:
        """Start to look; Unavailable where the system gives no more threads."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise Unavailable("nothing more can be fetched now") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop looking."""
        self._done.set()
        self._thread.join()
        for held in self._sockets:
            held.close()

    def check(self) -> float:
        """The seconds left.

        Raises:
            DeadlineExceeded: nobody waits any more.
            BadRequest: its own limit is over.
        """
        refuse_if_late(self._seconds_left)
        left_s = self._left_s()
        if left_s <= 0:
            raise BadRequest(f"what 'url' points to took longer than {self._timeout_s:g} s to fetch")
        return left_s

    def add(self, opened: socket.socket) -> None:
        """Watch a socket from now on, under whatever wrapping it goes on."""
        # A descriptor of its own: that of the socket may be closed, and its number another's, at any time.
        held = opened.dup()
        with self._lock:
            self._sockets.append(held)
            if self._is_over:
                _shut(held)

    def _left_s(self) -> float:
        return min(self._deadline - time.monotonic(), self._seconds_left())

    def _look(self) -> None:
        while (left_s := self._left_s()) > 0:
            if self._done.wait(min(left_s, LOOK_EVERY_S)):
                return
        with self._lock:
            self._is_over = True
            for held in self._sockets:
                _shut(held)


def _shut(held: socket.socket) -> None:
    with contextlib.suppress(OSError):  # its other end was faster
        held.shutdown(socket.SHUT_RDWR)
