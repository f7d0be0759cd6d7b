from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from bench.connections import HttpConnection, parse_head

Script = Callable[[socket.socket], object]


@contextlib.contextmanager
def listening(*scripts: Script) -> Iterator[str]:
    """A server that does with each connection what the next script says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for script in scripts:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(10)
                    script(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/invocations"
        thread.join(10)
        assert not thread.is_alive()


def read_request(connection: socket.socket) -> tuple[bytes, bytes]:
    """One request's head and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head, body


def answer(status: int, body: bytes, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\n%scontent-length: %d\r\n\r\n%s" % (status, more, len(body), body)


def connect(url: str, timeout_s: float = 10.0) -> HttpConnection:
    return HttpConnection(url, "a/b", "c/d", timeout_s)


def test_a_request_arrives_whole_and_its_answer_comes_back() -> None:
    seen: list[tuple[bytes, bytes]] = []
    large = bytes(range(256)) * 20_000  # more than the kernel takes at a time

    def script(connection: socket.socket) -> None:
        for status in (200, 503):
            seen.append(read_request(connection))
            connection.sendall(answer(status, seen[-1][1][:10]))

    with listening(script) as url:
        connection = connect(url)
        assert connection.send(large) == (200, large[:10])
        assert connection.send(b"") == (503, b"")
        connection.close()
    assert seen[0][0].startswith(b"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"Content-Type: a/b\r\nAccept: c/d\r\n" in seen[0][0]
    assert seen[0][1] == large


def test_an_answer_may_come_in_pieces() -> None:
    body = bytes(700_000)
    whole = answer(200, body)

    def script(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read_request(connection)
        for piece in (whole[:5], whole[5:19], whole[19:60], whole[60:]):
            connection.sendall(piece)

    with listening(script) as url:
        connection = connect(url)
        assert connection.send(b"x") == (200, body)
        connection.close()


def test_a_server_may_close_behind_its_answer() -> None:
    def script(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer(200, b"once", b"Connection: close\r\n"))

    with listening(script, script) as url:
        connection = connect(url)
        assert connection.send(b"x") == (200, b"once")
        assert connection.send(b"x") == (200, b"once")  # over a new one
        connection.close()


def test_a_connection_that_breaks_is_an_error_and_the_next_request_makes_a_new_one() -> None:
    def breaks(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer(200, b"whole")[:-1])

    def answers(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer(200, b"whole"))

    with listening(breaks, answers) as url:
        connection = connect(url)
        with pytest.raises(ConnectionResetError):
            connection.send(b"x")
        assert connection.send(b"x") == (200, b"whole")
        connection.close()


def test_no_answer_is_waited_for_no_longer_than_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.connections._GRACE_S", 0.0)
    done = threading.Event()
    with listening(lambda connection: (read_request(connection), done.wait(10))) as url:
        connection = connect(url, timeout_s=1.0)
        with pytest.raises(TimeoutError):
            connection.send(b"x")
        done.set()


@pytest.mark.parametrize(
    ("head", "parsed"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX: y:z", (200, 12, True)),
        (b"HTTP/1.1 503\r\ncontent-length:0\r\nConnection: Close", (503, 0, False)),
    ],
)
def test_heads(head: bytes, parsed: tuple[int, int, bool]) -> None:
    assert parse_head(head) == parsed


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked", b"HTTP/1.0 200 OK\r\ncontent-length: 1", b""]
)
def test_what_is_no_such_head_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match=r"HTTP/1\.1|Content-Length"):
        parse_head(head)
