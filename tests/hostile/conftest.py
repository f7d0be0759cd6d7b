"""The containers of the tests of hostile input: those of `tests/integration`, and the reference application for strangers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from integration.conftest import _sigint_is_not_ignored, endpoint, kind, new_endpoint
from integration.endpoint import Endpoint
from integration.whole_photo import whole_photo_endpoint

__all__ = ["_sigint_is_not_ignored", "endpoint", "kind", "new_endpoint"]


@pytest.fixture(scope="session")
def _started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Endpoint]]:
    """Starts one for each kind of front end, when it is first asked for; loading it takes longer than most tests."""
    started: dict[str, Endpoint] = {}

    def start(kind: str) -> Endpoint:
        if kind not in started:
            folder = tmp_path_factory.mktemp("strangers")
            started[kind] = whole_photo_endpoint(folder, kind, SAGEMAKER_MODEL_SERVER_WORKERS="12")
            started[kind].start().ready()
        return started[kind]

    try:
        yield start
    finally:
        for server in started.values():
            server.clean_up()


@pytest.fixture
def strangers(kind: str, _started: Callable[[str], Endpoint]) -> Endpoint:
    """The reference application, whose networks cost nothing; several tests' requests go to the same one."""
    return _started(kind)
