"""One line of JSON per event on standard output, from every process of the container.

A line is one `write` of at most 4096 bytes, which a pipe takes whole, so lines of several processes never mix: long texts are
cut, a trace at its beginning. `request` lines carry the request's id, status and milliseconds per hop; all others are events
in the life of the container or a worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import Any

_PIPE_BUF = 4096  # bytes that Linux writes to a pipe in one piece
_LONGEST_TEXT = 1500  # of one field, in characters, where a line would be longer than that
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
    data = json.dumps(line, default=str).encode() + b"\n"
    if len(data) > _PIPE_BUF:
        cut = {key: value[-_LONGEST_TEXT:] if isinstance(value, str) else value for key, value in line.items()}
        data = json.dumps(cut, default=str).encode() + b"\n"
    with contextlib.suppress(OSError, ValueError, AttributeError):  # user code may have closed or replaced it
        sys.stdout.flush()  # what user code printed before comes before
    with contextlib.suppress(OSError):  # nobody reads the log any more: no reason to fail a request
        while data:
            data = data[os.write(1, data) :]


def exception(name: str, error: BaseException, **fields: Any) -> None:
    """Write one line with an error's class, text and trace. The log is the only place where a trace goes."""
    trace = "".join(traceback.format_exception(error))
    event(name, error=type(error).__name__, message=str(error), trace=trace, **fields)
