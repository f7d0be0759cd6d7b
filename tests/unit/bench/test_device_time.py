from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from bench.device_time import (
    DeviceTime,
    causes_of,
    device_lines,
    device_seconds,
    device_table,
    device_time,
    read_device_seconds,
    read_gpu_utilization,
)

PAGE = """\
# HELP multigpu_device_seconds_total Where the time went.
# TYPE multigpu_device_seconds_total counter
multigpu_device_seconds_total{device="cpu:0",state="busy"} 6.0
multigpu_device_seconds_total{state="busy",device="cpu:1"} 1.5
multigpu_device_seconds_total{device="cpu:0",state="decode"} 3.0
# TYPE multigpu_requests_total counter
multigpu_requests_total{status="200",error=""} 99
"""


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that gives one answer to everything, below the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/metrics" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/invocations"
        finally:
            server.shutdown()
            thread.join()


def test_the_counter_is_taken_from_a_page() -> None:
    assert device_seconds(PAGE) == {("cpu:0", "busy"): 6.0, ("cpu:1", "busy"): 1.5, ("cpu:0", "decode"): 3.0}


def test_it_is_read_from_beside_the_invocations() -> None:
    with answering(200, PAGE.encode()) as url:
        assert read_device_seconds(url) == device_seconds(PAGE)


@pytest.mark.parametrize(("status", "body"), [(404, b"{}"), (200, b"# TYPE x counter\nx{ broken\n"), (200, b"\xff")])
def test_a_server_without_the_page_gives_nothing(status: int, body: bytes) -> None:
    with answering(status, body) as url:
        assert read_device_seconds(url) == {}


def test_a_server_that_has_gone_gives_nothing() -> None:
    with answering(200, b"") as url:
        pass
    assert read_device_seconds(url) == {}


def test_shares_are_of_what_was_accounted_for_in_between() -> None:
    before = {("cpu:0", "busy"): 6.0, ("cpu:0", "decode"): 3.0}
    after = {("cpu:0", "busy"): 9.0, ("cpu:0", "decode"): 3.5, ("cpu:0", "copy"): 0.5, ("cpu:1", "busy"): 2.0}
    assert device_time(before, after) == [
        DeviceTime("cpu:0", 4.0, 0.75, {"copy": 0.125, "decode": 0.125}),
        DeviceTime("cpu:1", 2.0, 1.0, {}),
    ]


def test_nothing_passed_is_nothing_told() -> None:
    assert device_time({}, {}) == []
    assert device_time({("cpu:0", "busy"): 6.0}, {("cpu:0", "busy"): 6.0}) == []


def test_a_table_has_a_column_for_each_cause_the_largest_first() -> None:
    devices = [
        DeviceTime("cpu:0", 4.0, 0.75, {"decode": 0.05, "no_traffic": 0.2}),
        DeviceTime("cpu:1", 4.0, 0.5, {"decode": 0.5}),
    ]
    assert causes_of(devices) == ["decode", "no_traffic"]
    titles, rows = device_lines(devices)
    assert titles == ["device", "busy", "idle: decode", "idle: no traffic"]
    assert rows == [["cpu:0", "75.0 %", "5.0 %", "20.0 %"], ["cpu:1", "50.0 %", "50.0 %", "0.0 %"]]
    assert device_table(devices).splitlines()[2].startswith("cpu:0")


def test_the_driver_s_word_on_each_gpu_is_read() -> None:
    page = PAGE + (
        "# TYPE multigpu_gpu_utilization_ratio gauge\n"
        'multigpu_gpu_utilization_ratio{device="cuda:0",uuid="GPU-1"} 0.75\n'
        'multigpu_gpu_utilization_ratio{device="cuda:1",uuid="GPU-2"} 0.5\n'
    )
    with answering(200, page.encode()) as url:
        assert read_gpu_utilization(url) == [0.75, 0.5]
    with answering(200, PAGE.encode()) as url:
        assert read_gpu_utilization(url) == []
    assert read_gpu_utilization("http://127.0.0.1:9/invocations") == []
