"""When each hop of a request began and ended, for the request that this thread is working on.

Whoever serves a request opens a recording; a pipeline far below it writes its stages' spans there. Outside a worker, in
a notebook, nothing records and nothing is kept. Times are `time.monotonic()`, which all processes of a machine share.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Span(NamedTuple):
    """One hop.

    Attributes:
        name: Such as `preprocess_ms`; its milliseconds are logged under it.
        started: Monotonic seconds.
        ended: Monotonic seconds.
        batch_size: How many items were worked on together.
    """

    name: str
    started: float
    ended: float
    batch_size: int = 1

    @property
    def milliseconds(self) -> float:
        """How long it took."""
        return (self.ended - self.started) * 1e3


_current: ContextVar[list[Span] | None] = ContextVar("hops", default=None)


@contextmanager
def recording() -> Iterator[list[Span]]:
    """Collect what is recorded within the block; gives the list that it is collected in, in the order of recording."""
    spans: list[Span] = []
    token = _current.set(spans)
    try:
        yield spans
    finally:
        _current.reset(token)


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Record the block as one span, also where it raises."""
    started = time.monotonic()
    try:
        yield
    finally:
        record(Span(name, started, time.monotonic()))


def record(span: Span) -> None:
    """Add a span to the current recording, if there is one."""
    spans = _current.get()
    if spans is not None:
        spans.append(span)
