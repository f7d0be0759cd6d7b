from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench.ping_watch import PingWatch
from support import free_port, wait_until


class PingServer(ThreadingHTTPServer):
    """Answers pings with what it was told, the last of it again and again; waits at the gate where that is shut."""

    daemon_threads = True

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.asked = 0
        self.gate = threading.Event()
        self.gate.set()
        super().__init__(("127.0.0.1", 0), PingHandler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/invocations"


class PingHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PingServer

    def do_GET(self) -> None:
        server = self.server
        server.asked += 1
        server.gate.wait(10)
        status = server.statuses.pop(0) if len(server.statuses) > 1 else server.statuses[0]
        self.send_response(status if self.path == "/ping" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[PingServer]:
    with PingServer(*getattr(request, "param", (200,))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.gate.set()
        server.shutdown()
        thread.join()


def test_every_ping_is_timed(server: PingServer) -> None:
    watch = PingWatch(server.url, every_s=0.01)
    watch.start()
    wait_until(lambda: server.asked >= 5, 10)
    pings = watch.stop()
    assert pings.count == server.asked
    assert pings.not_200 == {}
    assert 0 < pings.p50_ms <= pings.p99_ms <= pings.max_ms


@pytest.mark.parametrize("server", [(503, 200, 500, 503, 200)], indirect=True)
def test_what_is_not_200_is_counted_by_its_status(server: PingServer) -> None:
    watch = PingWatch(server.url, every_s=0.01)
    watch.start()
    wait_until(lambda: server.asked >= 6, 10)
    assert watch.stop().not_200 == {"503": 2, "500": 1}


def test_pings_that_were_due_behind_a_slow_one_were_late_too(server: PingServer) -> None:
    watch = PingWatch(server.url, every_s=0.02)
    server.gate.clear()
    watch.start()
    wait_until(lambda: server.asked == 1, 10)
    held = threading.Timer(0.3, server.gate.set)
    held.start()
    wait_until(lambda: server.asked >= 20, 10)
    pings = watch.stop()
    late = [ms for ms in watch._times_ms if ms > 100]
    assert pings.max_ms >= 250
    assert len(late) >= 5


def test_a_server_that_is_not_there_is_counted_too() -> None:
    watch = PingWatch(f"http://127.0.0.1:{free_port()}/", every_s=0.01)
    watch.start()
    wait_until(lambda: len(watch._times_ms) >= 2, 10)
    pings = watch.stop()
    assert set(pings.not_200) == {"ConnectionRefusedError"}
    assert pings.not_200["ConnectionRefusedError"] == pings.count
