"""Milliseconds per hop of the request that this thread is working on.

Whoever serves a request opens a recording; a pipeline far below it writes its stages' times there. Outside a worker, in
a notebook, nothing records and nothing is kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[dict[str, float] | None] = ContextVar("hops", default=None)


@contextmanager
def recording() -> Iterator[dict[str, float]]:
    """Collect what is recorded within the block; gives the dict that it is collected in."""
    hops: dict[str, float] = {}
    token = _current.set(hops)
    try:
        yield hops
    finally:
        _current.reset(token)


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Record how long the block takes, in wall milliseconds."""
    started = time.perf_counter()
    try:
        yield
    finally:
        record(name, (time.perf_counter() - started) * 1e3)


def record(name: str, milliseconds: float) -> None:
    """Add to a hop of the current recording, if there is one."""
    hops = _current.get()
    if hops is not None:
        hops[name] = hops.get(name, 0.0) + milliseconds
