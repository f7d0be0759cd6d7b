from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest

from multigpu_inference.url_fetch import fetch_url
from unit.container.multigpu_inference.url_fetch.strange_network import StrangeNetwork
from world import make_certificate


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's side of TLS for two names, and that of a client that trusts it."""
    server, trusted = make_certificate(tmp_path_factory.mktemp("tls"), "good.example", "www.good.example")
    return server, ssl.create_default_context(cafile=str(trusted))


@pytest.fixture
def strange(tls: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch) -> Iterator[StrangeNetwork]:
    monkeypatch.setattr(fetch_url, "_tls", lambda: tls[1])
    made = StrangeNetwork(tls=tls[0])
    yield made
    made.world.stopped.set()
