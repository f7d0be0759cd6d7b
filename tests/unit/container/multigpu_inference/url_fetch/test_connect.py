from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from multigpu_inference.errors import BadRequest, DeadlineExceeded, Unavailable
from multigpu_inference.url_fetch import look_up
from multigpu_inference.url_fetch.connect import Network, connect
from multigpu_inference.url_fetch.fetch_url import fetch_url
from multigpu_inference.url_fetch.guard import IPAddress, UrlRefused, parse_url
from multigpu_inference.url_fetch.policy import UrlPolicy
from multigpu_inference.url_fetch.watch import Watch

LOCAL = UrlPolicy(networks=(ip_network("127.0.0.0/8"),))


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def full() -> Iterator[int]:
    """A port that does not answer at 127.0.0.2: of a server whose queue of connections is full."""
    with socket.socket() as server, socket.socket() as other:
        server.bind(("127.0.0.2", 0))
        server.listen(0)
        other.bind(("127.0.0.3", server.getsockname()[1]))
        other.listen()
        waiting = []
        for _ in range(8):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(server.getsockname())
            waiting.append(client)
        yield server.getsockname()[1]
        for client in waiting:
            client.close()


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Stands in for the world's names."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 0)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def dialled(port: int, policy: UrlPolicy = LOCAL, limit_s: float = 5) -> Any:
    with Watch(limit_s) as watch, connect(parse_url(f"http://photos.example:{port}/"), policy, watch, Network()) as opened:
        return opened.getpeername()


def test_takes_the_first_address_that_answers(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    resolve_to(monkeypatch, "127.0.0.9", "127.0.0.1", "127.0.0.9")
    assert dialled(port) == ("127.0.0.1", port)


def test_one_that_does_not_answer_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch, full: int) -> None:
    resolve_to(monkeypatch, "127.0.0.2", "127.0.0.3")
    assert dialled(full, limit_s=1) == ("127.0.0.3", full)


@pytest.mark.parametrize(
    "addresses", [("127.0.0.1", "10.0.0.1"), ("fe80::1%eth0", "127.0.0.1"), ("169.254.169.254",), ("::1",)]
)
def test_one_bad_answer_refuses_them_all(monkeypatch: pytest.MonkeyPatch, port: int, addresses: tuple[str, ...]) -> None:
    resolve_to(monkeypatch, *addresses)
    with pytest.raises(UrlRefused):
        dialled(port)


def test_addresses_that_do_not_answer_share_the_time(monkeypatch: pytest.MonkeyPatch, full: int) -> None:
    resolve_to(monkeypatch, *["127.0.0.2"] * 6)
    began = time.monotonic()
    policy = UrlPolicy(ports=(full,), networks=LOCAL.networks)
    with pytest.raises(BadRequest, match=r"longer than 0\.6 s to fetch"):
        fetch_url(f"http://photos.example:{full}/a.jpg", timeout_s=0.6, policy=policy)
    assert 0.5 < time.monotonic() - began < 1.5


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_one_that_nobody_waits_for_is_given_up(monkeypatch: pytest.MonkeyPatch, full: int, port: int, scheme: str) -> None:
    """While it connects, and in the middle of TLS, which nobody answers there."""
    resolve_to(monkeypatch, "127.0.0.2" if scheme == "http" else "127.0.0.1")
    began, to = time.monotonic(), full if scheme == "http" else port
    with pytest.raises(DeadlineExceeded):
        fetch_url(
            f"{scheme}://photos.example:{to}/a.jpg",
            seconds_left=lambda: 9.0 if time.monotonic() < began + 0.2 else 0.0,
            policy=UrlPolicy(ports=(to,), networks=LOCAL.networks),
        )
    assert time.monotonic() - began < 2


V4, V6 = ip_address("93.184.216.34"), ip_address("2606:4700::1111")


class Unsteady(socket.socket):
    """A connection that is gone when it is asked who is at its other end."""

    def getpeername(self) -> Any:
        raise OSError(errno.ENOTCONN, "not connected")


def of(*addresses: IPAddress, dial: Callable[[IPAddress], socket.socket]) -> Network:
    """A network in which a name has these addresses."""
    return Network(lambda name, watch: list(addresses), lambda address, port, limit_s, watch: dial(address))


def without_ipv6(address: IPAddress) -> socket.socket:
    """As Linux does it: IPv4 is refused here, by the server."""
    raise OSError(errno.EADDRNOTAVAIL if address.version == 6 else errno.ECONNREFUSED, "not here")


@pytest.mark.parametrize("addresses", [(V6,), (V6, V4), (V4, V6)])
def test_a_machine_without_ipv6_has_not_run_out_of_ports(addresses: tuple[IPAddress, ...]) -> None:
    with pytest.raises(BadRequest, match="could not be fetched"):
        fetch_url("http://photos.example/", policy=UrlPolicy(), network=of(*addresses, dial=without_ipv6))


@pytest.mark.parametrize(("address", "code"), [(V4, errno.EADDRNOTAVAIL), (V4, errno.EMFILE), (V6, errno.EMFILE)])
def test_who_has_run_out_of_something_says_so(address: IPAddress, code: int) -> None:
    def dial(address: IPAddress) -> socket.socket:
        raise OSError(code, "no more")

    with pytest.raises(Unavailable, match="nothing more can be fetched now"):
        fetch_url("http://photos.example/", policy=UrlPolicy(), network=of(address, dial=dial))


def test_one_that_hangs_up_at_once_leaves_the_next(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    near, far = socket.socketpair()
    unsteady = Unsteady(fileno=near.detach())
    first, second = ip_address("127.0.0.9"), ip_address("127.0.0.1")

    def dial(address: IPAddress) -> socket.socket:
        return unsteady if address == first else socket.create_connection((str(address), port))

    with far, Watch(5) as watch:
        url = parse_url(f"http://photos.example:{port}/")
        with connect(url, LOCAL, watch, of(first, second, dial=dial)) as opened:
            assert opened.getpeername() == ("127.0.0.1", port)
    assert unsteady.fileno() == -1


class Resolver:
    """Stands in for a name server that does not answer."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked: list[bytes] = []

    def __call__(self, host: bytes, port: None, **_: Any) -> list[Any]:
        self.asked.append(host)
        self.answers.wait(20)
        raise socket.gaierror(socket.EAI_NONAME, "no such host")


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
    with pytest.raises(Unavailable, match="names cannot be looked up now"):
        fetch_url("https://photos.example/a.jpg", timeout_s=0.3)
    assert time.monotonic() - began < 2
    assert resolver.asked == [b"photos.example"]


def test_a_look_up_that_nobody_waits_for_is_given_up(resolver: Resolver) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        fetch_url("http://photos.example/a.jpg", seconds_left=lambda: 9.0 if resolver.asked == [] else 0.0)
    assert time.monotonic() - began < 2


def test_look_ups_are_bounded_those_included_that_were_given_up(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_up, "_looking_up", threading.BoundedSemaphore(2))
    for _ in range(2):
        with pytest.raises(Unavailable, match="names cannot be looked up now"):
            fetch_url("http://photos.example/a.jpg", timeout_s=0.05)
    with pytest.raises(Unavailable, match="too many names"):
        fetch_url("http://photos.example/a.jpg", timeout_s=0.05)
    resolver.answers.set()
    for _ in range(2):  # they come back when the system has given up as well
        assert look_up._looking_up.acquire(timeout=5)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (socket.gaierror(socket.EAI_NONAME, "no such host"), 400),
        (socket.gaierror(socket.EAI_NODATA, "no address"), 400),
        (socket.gaierror(socket.EAI_AGAIN, "no name server"), 503),
        (socket.gaierror(socket.EAI_SYSTEM, "no descriptors"), 503),
    ],
)
def test_a_name_that_is_not_there_and_one_that_nobody_can_look_up(
    monkeypatch: pytest.MonkeyPatch, error: OSError, status: int
) -> None:
    def fail(*_: Any, **__: Any) -> list[Any]:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises((BadRequest, Unavailable)) as raised:
        fetch_url("http://photos.example/a.jpg")
    assert raised.value.status == status
    assert str(error) in str(raised.value.__cause__)
