from __future__ import annotations

import math
import socket
import time

import pytest

from multigpu_inference.errors import BadRequest, DeadlineExceeded
from multigpu_inference.url_fetch import watch
from multigpu_inference.url_fetch.watch import Watch, forever, refuse_if_late


def test_nobody_counts() -> None:
    assert forever() == math.inf
    refuse_if_late(forever)


def test_says_how_much_is_left() -> None:
    with Watch(5, lambda: 2.0) as held:
        assert held.check() == 2.0
    with Watch(5) as held:
        assert 4 < held.check() <= 5


def test_tells_its_own_limit_from_the_clients() -> None:
    with Watch(0) as held, pytest.raises(BadRequest, match="longer than 0 s"):
        held.check()
    with Watch(0, lambda: 0.0) as held, pytest.raises(DeadlineExceeded):
        held.check()


@pytest.mark.parametrize("limit", ["its own", "the client's"])
def test_wakes_whoever_waits_for_a_socket(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.02)
    near, far = socket.socketpair()
    began = time.monotonic()
    left = forever if limit == "its own" else lambda: 9.0 if time.monotonic() < began + 0.1 else 0.0
    with near, far, Watch(0.1 if limit == "its own" else 9, left) as held:
        held.add(near)
        near.settimeout(5)
        assert near.recv(1) == b""
    assert 0.09 < time.monotonic() - began < 2


def test_a_socket_that_comes_too_late_is_shut_at_once() -> None:
    near, far = socket.socketpair()
    with near, far, Watch(0) as held:
        held._thread.join()
        held.add(near)
        near.settimeout(5)
        assert near.recv(1) == b""


def test_wakes_whoever_waits_under_another_wrapping() -> None:
    """As TLS does, which takes the descriptor over."""
    near, far = socket.socketpair()
    with far, Watch(0.1) as held:
        held.add(near)
        with socket.socket(fileno=near.detach()) as wrapped:
            wrapped.settimeout(5)
            assert wrapped.recv(1) == b""


def test_keeps_no_socket() -> None:
    near, far = socket.socketpair()
    with near, far:
        with Watch(5) as held:
            held.add(near)
        near.close()
        far.settimeout(5)
        assert far.recv(1) == b""
