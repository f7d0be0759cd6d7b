from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import matting.connect
from matting.connect import connect
from matting.download import download
from matting.watch import Watch
from multigpu_inference.errors import BadRequest, DeadlineExceeded, Unavailable


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def full() -> Iterator[tuple[str, int]]:
    """An address that does not answer: a server whose queue of connections is full."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = []
        for _ in range(8):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(server.getsockname())
            waiting.append(client)
        yield server.getsockname()
        for client in waiting:
            client.close()


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Stands in for the world's names."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def test_takes_the_first_address_that_answers(monkeypatch: pytest.MonkeyPatch, listener: socket.socket) -> None:
    refusing = ("127.0.0.1", 1)
    resolve_to(monkeypatch, refusing, listener.getsockname(), refusing)
    with Watch(5) as watch, connect("photos.example", 80, watch) as opened:
        assert opened.getpeername() == listener.getsockname()


def test_one_that_does_not_answer_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch, full: tuple[str, int], listener: socket.socket
) -> None:
    resolve_to(monkeypatch, full, listener.getsockname())
    with Watch(1) as watch, connect("photos.example", 80, watch) as opened:
        assert opened.getpeername() == listener.getsockname()


def test_addresses_that_do_not_answer_share_the_time(monkeypatch: pytest.MonkeyPatch, full: tuple[str, int]) -> None:
    resolve_to(monkeypatch, *[full] * 6)
    began = time.monotonic()
    with pytest.raises(BadRequest, match=r"longer than 0\.6 s to download"):
        download("http://photos.example/a.jpg", timeout_s=0.6)
    assert 0.5 < time.monotonic() - began < 1.5


def test_a_connection_that_nobody_waits_for_is_given_up(monkeypatch: pytest.MonkeyPatch, full: tuple[str, int]) -> None:
    resolve_to(monkeypatch, full)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        download("http://photos.example/a.jpg", seconds_left=lambda: 9.0 if time.monotonic() < began + 0.2 else 0.0)
    assert time.monotonic() - began < 2


def test_a_handshake_that_nobody_waits_for_is_given_up(listener: socket.socket) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        download(
            f"https://127.0.0.1:{listener.getsockname()[1]}/a.jpg",
            seconds_left=lambda: 9.0 if time.monotonic() < began + 0.2 else 0.0,
        )
    assert time.monotonic() - began < 2


class Resolver:
    """Stands in for a name server that does not answer."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked: list[tuple[str, int]] = []

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append((host, port))
        self.answers.wait(20)
        raise socket.gaierror("no such host")


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    slow = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    before = set(threading.enumerate())
    yield slow
    slow.answers.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)


def test_a_slow_look_up_is_given_up(resolver: Resolver) -> None:
    began = time.monotonic()
    with pytest.raises(BadRequest, match=r"longer than 0\.3 s to download"):
        download("https://photos.example/a.jpg", timeout_s=0.3)
    assert time.monotonic() - began < 2
    assert resolver.asked == [("photos.example", 443)]


def test_a_look_up_that_nobody_waits_for_is_given_up(resolver: Resolver) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        download("http://photos.example/a.jpg", seconds_left=lambda: 9.0 if resolver.asked == [] else 0.0)
    assert time.monotonic() - began < 2


def test_look_ups_are_bounded_those_included_that_were_given_up(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matting.connect, "_looking_up", threading.BoundedSemaphore(2))
    for _ in range(2):
        with pytest.raises(BadRequest, match="took longer"):
            download("http://photos.example/a.jpg", timeout_s=0.05)
    with pytest.raises(Unavailable, match="too many names"):
        download("http://photos.example/a.jpg", timeout_s=0.05)
    resolver.answers.set()
    for _ in range(2):  # they come back when the system has given up as well
        assert matting.connect._looking_up.acquire(timeout=5)


def test_a_host_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch)
    with pytest.raises(BadRequest, match="could not be downloaded"):
        download("http://photos.example/a.jpg")


@pytest.mark.parametrize("host", ["[::1]", "::1"])
def test_addresses_of_version_6(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with Watch(5) as watch, pytest.raises(OSError, match="has no address"):
        connect(host, 80, watch)
    assert asked == ["::1"]
