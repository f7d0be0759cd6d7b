from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.endpoint import Endpoint
from integration.kinds import KINDS


@pytest.fixture(scope="session", autouse=True)
def _sigint_is_not_ignored() -> None:
    """What a shell starts in the background has SIGINT ignored, and passes that on to what a test starts and interrupts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of front end."""
    value: str = request.param
    return value


@pytest.fixture(scope="module")
def endpoint(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """One container that serves `commands` on two replicas; whoever breaks it for good takes `new_endpoint`."""
    folder = tmp_path_factory.mktemp("endpoint")
    server = Endpoint(folder, MULTIGPU_FRONT_END=kind, MULTIGPU_REQUEST_TIMEOUT_S="4").with_script("commands")
    try:
        yield server.start().ready()
    finally:
        server.clean_up()


@pytest.fixture
def new_endpoint(kind: str, tmp_path: Path) -> Iterator[Callable[..., Endpoint]]:
    """Makes containers that are not started yet, and ends them."""
    made: list[Endpoint] = []

    def make(**environment: str) -> Endpoint:
        made.append(Endpoint(tmp_path / str(len(made)), **{"MULTIGPU_FRONT_END": kind, **environment}))
        made[-1].folder.mkdir()
        return made[-1]

    yield make
    for server in made:
        server.clean_up()
