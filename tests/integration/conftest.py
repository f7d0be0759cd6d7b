from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.endpoint import Endpoint


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """One container that serves `commands` on two replicas; whoever breaks it for good takes `new_endpoint`."""
    server = Endpoint(tmp_path_factory.mktemp("endpoint"), MULTIGPU_REQUEST_TIMEOUT_S="4").with_script("commands")
    try:
        yield server.start().ready()
    finally:
        server.clean_up()


@pytest.fixture
def new_endpoint(tmp_path: Path) -> Iterator[Callable[..., Endpoint]]:
    """Makes containers that are not started yet, and ends them."""
    made: list[Endpoint] = []

    def make(**environment: str) -> Endpoint:
        made.append(Endpoint(tmp_path / str(len(made)), **environment))
        made[-1].folder.mkdir()
        return made[-1]

    yield make
    for server in made:
        server.clean_up()
