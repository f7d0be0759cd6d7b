from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.frontend.front_end import FrontEnd
from integration.frontend.http_front_end import HttpFrontEnd
from integration.frontend.model_server_front_end import ModelServerFrontEnd
from multigpu_inference.config import HTTP, MMS

BY_KIND: dict[str, Callable[..., FrontEnd]] = {MMS: ModelServerFrontEnd, HTTP: HttpFrontEnd}


@pytest.fixture(scope="module")
def front_end(kind: str) -> Iterator[FrontEnd]:
    """One that serves; whoever breaks it takes `new_front_end`."""
    server = BY_KIND[kind]()
    try:
        yield server.start().ready()
    finally:
        server.clean_up()


@pytest.fixture
def tmp() -> Iterator[Path]:
    """A folder that other users can enter."""
    with tempfile.TemporaryDirectory(prefix="fe-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.fixture
def new_front_end(kind: str) -> Iterator[Callable[..., FrontEnd]]:
    """Makes front ends that are not started yet, and ends them."""
    made: list[FrontEnd] = []

    def make(**arguments: object) -> FrontEnd:
        made.append(BY_KIND[kind](**arguments))
        return made[-1]

    yield make
    for server in made:
        server.clean_up()
