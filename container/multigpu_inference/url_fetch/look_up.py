"""Looks a name up, within the time of a watch. Runs in the fetch process."""

from __future__ import annotations

import queue
import socket
import threading

from multigpu_inference.errors import BadRequest, Unavailable
from multigpu_inference.url_fetch.guard import IPAddress, UrlRefused, read_address
from multigpu_inference.url_fetch.watch import LOOK_EVERY_S, Watch

_LOOKUPS = 200  # at a time, given up or not; the system's own limit of a slow one is half a minute
_looking_up = threading.BoundedSemaphore(_LOOKUPS)
_NOT_NOW = "names cannot be looked up now"


def look_up(name: str, watch: Watch) -> list[IPAddress]:
    """All addresses of a name, each once, in the system's order. In a thread, as the system's look-up cannot be ended.

    Raises:
        Unavailable: the name servers do not answer, or not in time; or too many names are being looked up.
        UrlRefused: there is no such name; or an answer that is no plain address.
        DeadlineExceeded: nobody waits any more.
    """
    answer: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
            answer.put([str(address[0]) for _, _, _, _, address in found])
        except Exception as error:
            answer.put(error)
        finally:
            _looking_up.release()

    watch.check()
    if not _looking_up.acquire(blocking=False):
        raise Unavailable("too many names are being looked up now")
    try:
        threading.Thread(target=ask, name="look-up", daemon=True).start()
    except RuntimeError as error:  # the system gives no more threads
        _looking_up.release()
        raise Unavailable(_NOT_NOW) from error
    while True:
        try:
            found = answer.get(timeout=min(_check(watch), LOOK_EVERY_S))
        except queue.Empty:
            continue
        if isinstance(found, Exception):
            raise _failure(name, found)
        return [read_address(text) for text in dict.fromkeys(found)]


def _check(watch: Watch) -> float:
    """The seconds left; a name server that has not answered until the end is no fault of the client's."""
    try:
        return watch.check()
    except BadRequest:
        raise Unavailable(_NOT_NOW) from None


def _failure(name: str, error: Exception) -> Exception:
    if isinstance(error, socket.gaierror) and error.errno in (socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_MEMORY):
        failed = Unavailable(_NOT_NOW)
        failed.__cause__ = error
        return failed
    if isinstance(error, OSError | UnicodeError):
        return UrlRefused(f"{name} is not looked up: {error}")
    return error
