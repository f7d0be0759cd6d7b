from __future__ import annotations

import pytest

from multigpu_inference.frontend.http.connection import MAX_CONNECTIONS, _without_upgrade, max_connections

HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize("name", [b"Upgrade", b"upgrade", b"UPGRADE"])
def test_an_offer_to_speak_something_else_is_not_passed_on(name: bytes) -> None:
    left = _without_upgrade(HEAD + name + b": h2c\r\nConnection: Upgrade\r\n\r\nbody")
    head, body = left.split(b"\r\n\r\n")
    assert not [line for line in head.lower().split(b"\r\n") if line.startswith(b"upgrade:")]
    assert (body, head.count(b"\r\n")) == (b"body", 3)


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"\r\n",
        HEAD + b"X: \r\n\r\n\r\nUpgrade: this is a body\r\n",
        HEAD + b"X-Upgrade: 1\r\nA: Upgrade: b\r\n\r\n",
        HEAD + b"Upgrade: not com",
    ],
)
def test_all_else_is_left_as_it_is(data: bytes) -> None:
    assert _without_upgrade(data) == data


@pytest.mark.parametrize(("descriptors", "connections"), [(256, 74), (1024, 330), (1 << 20, MAX_CONNECTIONS), (16, 1)])
def test_no_more_connections_than_there_are_descriptors_for(descriptors: int, connections: int) -> None:
    assert max_connections(descriptors) == connections
