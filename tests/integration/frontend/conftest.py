from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from integration.frontend.front_end import FrontEnd


@pytest.fixture(scope="module")
def front_end() -> Iterator[FrontEnd]:
    """One that serves; whoever breaks it takes `new_front_end`."""
    server = FrontEnd()
    try:
        yield server.start().ready()
    finally:
        server.clean_up()


@pytest.fixture
def new_front_end() -> Iterator[Callable[..., FrontEnd]]:
    """Makes front ends that are not started yet, and ends them."""
    made: list[FrontEnd] = []

    def make(**arguments: object) -> FrontEnd:
        made.append(FrontEnd(**arguments))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for server in made:
        server.clean_up()
