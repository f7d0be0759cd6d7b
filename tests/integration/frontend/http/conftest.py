from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from integration.frontend.http_front_end import HttpFrontEnd

# A tenth of the real ones, or less.
SMALL_LIMITS = {
    "connection.HEAD_LIMIT_S": 0.6,
    "connection.IDLE_LIMIT_S": 1.0,
    "connection.BODY_IDLE_LIMIT_S": 0.6,
    "connection.BODY_LIMIT_S": 2.0,
    "connection.UNREAD_LIMIT_S": 0.6,
    "connection.STALLED_LIMIT_S": 0.6,
    "engine_link._SILENT_AFTER_S": 1.5,
    "engine_link._TRIM_EVERY_S": 0.2,
    "server._LOOK_EVERY_S": 0.1,
}
# Within which what is over its limit is ended, on a busy machine.
OVER_S = 6.0


@pytest.fixture(scope="module")
def front_end() -> Iterator[HttpFrontEnd]:
    """One that serves; whoever breaks it takes `new_front_end`."""
    server = HttpFrontEnd()
    try:
        yield server.start().ready()
    finally:
        server.clean_up()


@pytest.fixture(scope="module")
def impatient() -> Iterator[HttpFrontEnd]:
    """One that serves, with small limits."""
    server = HttpFrontEnd(SMALL_LIMITS)
    try:
        yield server.start().ready()
    finally:
        server.clean_up()


@pytest.fixture
def new_front_end() -> Iterator[Callable[..., HttpFrontEnd]]:
    """Makes front ends that are not started yet, and ends them."""
    made: list[HttpFrontEnd] = []

    def make(limits: dict[str, float] | None = None, **environment: str) -> HttpFrontEnd:
        made.append(HttpFrontEnd(limits, None, **environment))
        return made[-1]

    yield make
    for server in made:
        server.clean_up()
