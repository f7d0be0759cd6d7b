"""One line of JSON per event on standard output, from every process of the container.

A line is one `write` of at most 4096 bytes, which a pipe takes whole, so lines of several processes never mix, and one is
written without waiting where there is room: what is long is cut, a trace at its beginning. `request` lines carry
the request's id, status and milliseconds per hop; all others are events in the life of the container or a worker.

Whoever reads the log may get stuck, and a write to a full pipe would wait with it: then lines are lost, and requests are not.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

_PIPE_BUF = 4096  # bytes that Linux writes to a pipe in one piece
_LONGEST_TEXT = 1500  # of one field, in characters, where a line would be longer than that; less where they take many bytes
_SHORTEST_TEXT = 40
_OUTPUT = 1
# How long a line waits for a reader that takes nothing, and how soon one does so again: the engine has all requests waiting
# with it meanwhile.
_WAIT_S, _WAIT_AGAIN_S = 1.0, 60.0
_source = "?"


def set_source(name: str) -> None:
    """Name the process that the lines of this one come from, such as `engine` or `replica-0`."""
    global _source
    _source = name


def event(name: str, **fields: Any) -> None:
    """Write one line: time, source, the event's name and its fields (None is left out)."""
    line = {
        "time": datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds"),
        "source": _source,
        "event": name,
        **{key: value for key, value in fields.items() if value is not None},
    }
    data = _encoded(line)
    if not _reader.takes():
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):  # user code may have closed or replaced it
        sys.stdout.flush()  # what user code printed before comes before
    with contextlib.suppress(OSError):  # nobody reads the log any more: no reason to fail a request
        while data:
            data = data[os.write(_OUTPUT, data) :]
    if lost := _reader.lost():
        event("log_lines_lost", count=lost)


def exception(name: str, error: BaseException, **fields: Any) -> None:
    """Write one line with an error's class, text and trace. The log is the only place where a trace goes."""
    trace = "".join(traceback.format_exception(error))
    event(name, error=type(error).__name__, message=str(error), trace=trace, **fields)


def _encoded(line: dict[str, Any]) -> bytes:
    """A line of at most `_PIPE_BUF` bytes. In JSON a character may take twelve, and lists of any length are there, too."""
    data = json.dumps(line, default=str).encode() + b"\n"
    longest = _LONGEST_TEXT
    while len(data) > _PIPE_BUF:
        if longest == _SHORTEST_TEXT:  # it has hundreds of fields
            line = dict(list(line.items())[: len(line) // 2])
        data = json.dumps({key: _cut(value, longest) for key, value in line.items()}, default=str).encode() + b"\n"
        longest = max(longest // 2, _SHORTEST_TEXT)
    return data


def _cut(value: Any, longest: int) -> Any:
    """A text's end, and of anything that has parts its beginning, as text, where it is longer than so many characters."""
    if isinstance(value, str):
        return value[-longest:]
    text = json.dumps(value, default=str)
    return value if len(text) <= longest else text[:longest]


class Reader:
    """Whoever reads the log, as far as it can be told here: whether there is room for a line.

    Two processes that find the last room at the same moment may still have one of them wait. A file always has room, and so
    has a pipe that nobody reads any more: writing to that fails at once.

    Args:
        has_room: Whether there is room within so many milliseconds.
        clock: Monotonic seconds.
    """

    def __init__(self, has_room: Callable[[int], object], clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is lost yet."""
        self._has_room = has_room
        self._clock = clock
        self._lost = 0
        self._wait_from = clock()

    def takes(self) -> bool:
        """Whether a line can be written now, or soon; else it counts as lost."""
        if self._has_room(0):
            return True
        if self._clock() >= self._wait_from:
            if self._has_room(int(_WAIT_S * 1e3)):
                return True
            self._wait_from = self._clock() + _WAIT_AGAIN_S
        self._lost += 1
        return False

    def lost(self) -> int:
        """Lines lost since this was last asked."""
        lost, self._lost = self._lost, 0
        return lost


def _has_room(wait_ms: int) -> object:
    poll = select.poll()
    poll.register(_OUTPUT, select.POLLOUT)
    return poll.poll(wait_ms)


_reader = Reader(_has_room)
