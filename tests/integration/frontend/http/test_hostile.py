"""Ten thousand requests that mean no good, and then one that does."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from integration.frontend.http.raw_connection import RawConnection, request
from integration.frontend.http_front_end import HttpFrontEnd
from multigpu_inference.messages import Health
from support import wait_until

COUNT, ROUNDS = 10_000, 20
MB = 1 << 20
CHUNKED = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: test/echo\r\nTransfer-Encoding: chunked\r\n\r\n"
METHODS = ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "PATCH", "CONNECT", "POST", "BREW"]
PATHS = ["/", "/ping", "/invocations", "/metrics", "/../../etc/passwd", "/%00", "*", "//", "/ping?%", "http://y/ping"]
TYPES = ["", "a/b\xff", "multipart/mixed", "multipart/mixed; boundary=b", "multipart/form-data; boundary=b", "x" * 3000]


def garbage(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(1, 2000))


def text(chance: random.Random) -> bytes:
    return bytes(chance.choices(b"GET POST/:\r\n \t0123456789abc%", k=chance.randrange(1, 500)))


def cut_off(chance: random.Random) -> bytes:
    whole = request(body=chance.randbytes(200), X=chance.choice(["", "y" * 100]))
    return whole[: chance.randrange(1, len(whole))]


def flipped(chance: random.Random) -> bytes:
    whole = bytearray(request(body=b"body"))
    for _ in range(chance.randrange(1, 4)):
        whole[chance.randrange(len(whole))] = chance.randrange(256)
    return bytes(whole)


def odd(chance: random.Random) -> bytes:
    return f"{chance.choice(METHODS)} {chance.choice(PATHS)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def lying(chance: random.Random) -> bytes:
    length = chance.choice(["-1", "1e3", "99999999999999999999", "5, 5", "", "0x10", "1000000", " 3"])
    return f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\nbody".encode()


def smuggled(chance: random.Random) -> bytes:
    inner = request("test/status", b"500")
    framing = chance.choice(
        ["Content-Length: 3\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 3"]
    )
    return b"POST /invocations HTTP/1.1\r\nHost: x\r\n" + framing.encode() + b"\r\n\r\n0\r\n\r\n" + inner


def bad_chunks(chance: random.Random) -> bytes:
    sizes = [b"zz", b"-1", b"ffffffffffffffff", b"5;" + b"e" * 3000, b"2", b"100000"]
    return CHUNKED + chance.choice(sizes) + b"\r\nab\r\n" + chance.choice([b"0\r\n\r\n", b"0\r\nX: y\r\n", b""])


def bad_body(chance: random.Random) -> bytes:
    body = chance.choice([b"", b"--b--", b"--b\r\n\r\n", chance.randbytes(300), b"--b\r\n" * 200])
    return request(chance.choice(TYPES), body)


def many(chance: random.Random) -> bytes:
    return b"".join(odd(chance) for _ in range(chance.randrange(2, 20)))


KINDS: list[Callable[[random.Random], bytes]] = [
    garbage, text, cut_off, flipped, odd, lying, smuggled, bad_chunks, bad_body, many,
]  # fmt: skip


def send(port: int, sent: bytes, *, listens: bool) -> None:
    """Send it, read a little of what comes perhaps, and go."""
    with RawConnection(port, 5.0) as connection:
        try:
            connection.send(sent)
            if listens:
                connection.socket.settimeout(0.01)
                connection.socket.recv(1000)
        except OSError:  # it has been thrown out, or nothing comes
            pass


@pytest.mark.timeout(240)
def test_ten_thousand_hostile_requests_and_then_a_good_one(new_front_end: Callable[..., HttpFrontEnd]) -> None:
    server = new_front_end({"engine_link._TRIM_EVERY_S": 0.5})
    server.engine.health = Health("healthy", 2, 2, 16)
    server.start().ready()
    (process,) = server.processes()
    descriptors = process.num_fds()
    chance = random.Random(4)

    def storm() -> None:
        requests = [(chance.choice(KINDS)(chance), chance.random() < 0.1) for _ in range(COUNT // ROUNDS)]
        for done in [threads.submit(send, server.port, sent, listens=listens) for sent, listens in requests]:
            done.result()
        wait_until(lambda: connections(process) == 0, 20)

    with ThreadPoolExecutor(8) as threads:
        for _ in range(2):  # whatever is imported or kept for the first of its kind
            storm()
        memory = process.memory_info().rss
        for _ in range(2, ROUNDS):
            storm()
    assert server.ping() == 200
    assert server.post("test/echo", b"good").content == b"good"
    assert server.serving() == {process.pid}
    wait_until(lambda: process.num_fds() <= descriptors, 10)
    assert process.memory_info().rss - memory < 8 * MB
    assert server.events("http_server_error") == []


def connections(process: psutil.Process) -> int:
    return sum(each.status != "LISTEN" for each in process.net_connections(kind="tcp"))
