"""Connects to a host by name, within the time of a watch over all of it. Runs in the fetch process."""

from __future__ import annotations

import queue
import socket
import threading
from typing import Any

from matting.watch import LOOK_EVERY_S, Watch
from multigpu_inference.errors import Unavailable

_LOOKUPS = 200  # at a time, given up or not; the system's own limit of a slow one is half a minute
_looking_up = threading.BoundedSemaphore(_LOOKUPS)


def connect(host: str, port: int, watch: Watch) -> socket.socket:
    """Open a TCP connection to the first of a host's addresses that takes it.

    Args:
        host: a name or an address; one of IPv6 with or without brackets.
        port: from 0 to 65535.
        watch: bounds the look-up and all addresses together; it holds the socket from before it connects.

    Raises:
        ServingError: the time is over, or too many names are being looked up.
        OSError: there is no such host, or none of its addresses answers.
    """
    addresses = _look_up(host.strip("[]"), port, watch)
    refused: OSError = OSError("the host has no address")
    for at, (family, kind, protocol, _, address) in enumerate(addresses):
        opened = socket.socket(family, kind, protocol)
        try:
            # One that does not answer leaves the others their share.
            opened.settimeout(watch.check() / (len(addresses) - at))
            watch.add(opened)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.connect(address)
            opened.settimeout(watch.check())
        except OSError as error:
            opened.close()
            refused = error
        except BaseException:
            opened.close()
            raise
        else:
            return opened
    raise refused


def _look_up(host: str, port: int, watch: Watch) -> list[Any]:
    """A host's addresses, as `socket.getaddrinfo` has them: in a thread, as the system's look-up cannot be ended."""
    answer: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except Exception as error:
            answer.put(error)
        finally:
            _looking_up.release()

    watch.check()
    if not _looking_up.acquire(blocking=False):
        raise Unavailable("too many names are being looked up now")
    try:
        threading.Thread(target=ask, name="look-up", daemon=True).start()
    except RuntimeError:  # the system gives no more threads
        _looking_up.release()
        raise
    while True:
        try:
            found = answer.get(timeout=min(watch.check(), LOOK_EVERY_S))
        except queue.Empty:
            continue
        if isinstance(found, Exception):
            raise found
        return found
