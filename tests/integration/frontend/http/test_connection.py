"""What a connection takes for HTTP, and for how long it waits."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from integration.frontend.http.conftest import OVER_S
from integration.frontend.http.raw_connection import RawConnection, request
from integration.frontend.http_front_end import HttpFrontEnd
from multigpu_inference.frontend.http.connection import MAX_HEAD_BYTES, MAX_PIPELINED
from support import wait_until

MB = 1 << 20
PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: test/echo\r\n"
CHUNKED = HEAD.replace(b"test/echo", b"test/describe") + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def it_still_serves(front_end: HttpFrontEnd) -> object:
    before = front_end.serving()
    yield
    assert front_end.post("test/echo", b"still here").content == b"still here"
    assert front_end.serving() == before


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
        b"GET /ping HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        b"GET /ping HTTP/1.1\nHost: x\n\n",
        b"GET /ping HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD + b"Content-Length: -4\r\n\r\nabcd",
        HEAD + b"Content-Length: +4\r\n\r\nabcd",
        HEAD + b"Content-Length: 4 4\r\n\r\nabcd",
        HEAD + b"Content-Length: 0x4\r\n\r\nabcd",
        HEAD + b"Content-Length: 99999999999999999999999\r\n\r\nabcd",
        HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        HEAD + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
        HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-2\r\nab\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_http_is_400_and_the_connection_closes(front_end: HttpFrontEnd, sent: bytes) -> None:
    answered = front_end.engine.answered
    with RawConnection(front_end.port) as connection:
        answer = connection.ask(sent)
        assert (answer.status, answer.json()["error"]) == (400, "bad_request")
        assert connection.is_closed(5)
    assert front_end.engine.answered == answered


def test_headers_over_the_limit_are_431(front_end: HttpFrontEnd) -> None:
    with RawConnection(front_end.port) as connection:
        assert connection.ask(request(body=b"x", X_Large="a" * 100_000)).status == 431
        assert connection.is_closed(5)


def test_headers_over_the_limit_are_431_however_slowly_they_come(front_end: HttpFrontEnd) -> None:
    with RawConnection(front_end.port) as connection:
        for piece in [HEAD + b"X: ", *[b"a" * 6600] * 10]:  # the last one is too much
            connection.send(piece)
            wait_until(lambda: unread(front_end) == 0, 5)
        assert connection.answer().status == 431
        assert connection.is_closed(5)


def unread(front_end: HttpFrontEnd) -> int:
    """Bytes that wait in the kernel for the front end to read them."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ours = [line.split() for line in lines if int(line.split()[1].split(":")[1], 16) == front_end.port]
    return sum(int(fields[4].split(":")[1], 16) for fields in ours if fields[3] == "01")


def test_headers_below_the_limit_are_taken(front_end: HttpFrontEnd) -> None:
    with RawConnection(front_end.port) as connection:
        answer = connection.ask(request(body=b"x", X_Large="a" * (MAX_HEAD_BYTES - 1000)))
    assert (answer.status, answer.body) == (200, b"x")


def test_a_head_behind_a_large_body_is_not_taken_for_a_large_head(front_end: HttpFrontEnd) -> None:
    second = request(body=b"second")
    with RawConnection(front_end.port) as connection:
        connection.send(request(body=bytes(200_000)) + second[:30])
        assert len(connection.answer().body) == 200_000
        assert connection.ask(second[30:]).body == b"second"


def test_pipelined_requests_are_answered_in_order(front_end: HttpFrontEnd) -> None:
    bodies = [b"%d" % number for number in range(MAX_PIPELINED - 1)]
    with RawConnection(front_end.port) as connection:
        connection.send(request("test/hold", b"first"), *[request(body=body) for body in bodies], PING)
        wait_until(lambda: front_end.engine.held, 5)
        front_end.engine.release()
        assert [connection.answer().body for _ in range(MAX_PIPELINED)] == [b"first", *bodies]
        assert connection.answer().json()["status"] == "healthy"


def test_no_more_requests_are_kept_than_a_connection_may_send_ahead(front_end: HttpFrontEnd) -> None:
    answered = front_end.engine.answered
    with RawConnection(front_end.port) as connection:
        connection.send(request("test/hold", b"first") + request(body=b"x") * 1000)
        wait_until(lambda: front_end.engine.held, 5)
        front_end.engine.release()
        assert connection.answer().body == b"first"
        assert connection.is_closed(5)
    assert front_end.engine.answered == answered


def test_a_good_request_is_answered_although_garbage_follows_it(front_end: HttpFrontEnd) -> None:
    with RawConnection(front_end.port) as connection:
        connection.send(request("test/hold", b"good") + b"\x00garbage\r\n\r\n")
        wait_until(lambda: front_end.engine.held, 5)
        front_end.engine.release()
        answer = connection.answer()
        assert (answer.status, answer.body) == (200, b"good")
        assert connection.is_closed(5)


def test_a_client_that_pipelines_and_leaves_cancels_what_runs(front_end: HttpFrontEnd) -> None:
    with RawConnection(front_end.port) as connection:
        connection.send(request("test/hold", b"running") + request("test/hold", b"never begun"))
        (held,) = wait_until(lambda: front_end.engine.held, 5)
    wait_until(lambda: held.invocation.request_id in front_end.engine.cancelled, 5)
    assert front_end.engine.held == []


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_the_connection_closes_where_the_client_asks_for_it(front_end: HttpFrontEnd, version: str) -> None:
    headers = {} if version == "HTTP/1.0" else {"Connection": "close"}
    sent = request(body=b"x", **headers).replace(b"HTTP/1.1", version.encode())
    with RawConnection(front_end.port) as connection:
        answer = connection.ask(sent)
        assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"x", "close")
        assert connection.is_closed(5)


def test_blank_lines_before_a_request_are_nothing(front_end: HttpFrontEnd) -> None:
    with RawConnection(front_end.port) as connection:
        assert connection.ask(b"\r\n\r\n" + PING).status == 200


def test_what_stands_behind_a_body_is_no_header(front_end: HttpFrontEnd) -> None:
    with RawConnection(front_end.port) as connection:
        answer = connection.ask(CHUNKED + b"2\r\nab\r\n0\r\nContent-Type: test/status\r\nX-Late: 1\r\n\r\n")
        assert answer.status in (200, 400)
        if answer.status == 200:
            seen = answer.json()
            assert (seen["content_type"], seen["body"]) == ("test/describe", "ab")
            assert "x-late" not in seen["headers"]


@pytest.mark.parametrize("line", [b"X-Trailer: 1\r\n", b"1" * 14], ids=["many", "long"])
def test_trailers_without_end_are_cut_off_and_take_no_memory(front_end: HttpFrontEnd, line: bytes) -> None:
    (process,) = front_end.processes()
    before = process.memory_info().rss
    with RawConnection(front_end.port) as connection:
        connection.send(CHUNKED + b"2\r\nab\r\n0\r\nX: ")
        wait_until(lambda: cannot_be_sent(connection, line * 10_000), OVER_S)
    assert process.memory_info().rss - before < 20 * MB


def cannot_be_sent(connection: RawConnection, sent: bytes) -> bool:
    try:
        connection.send(sent)
    except OSError:  # reset, or a broken pipe
        return True
    return False


def test_five_hundred_connections_at_a_time(front_end: HttpFrontEnd) -> None:
    connections = [RawConnection(front_end.port) for _ in range(500)]
    try:
        for number, connection in enumerate(connections):
            connection.send(request(body=b"%d" % number))
        assert [connection.answer().body for connection in connections] == [b"%d" % number for number in range(500)]
    finally:
        for connection in connections:
            connection.close()
    (process,) = front_end.processes()
    wait_until(lambda: len(process.net_connections(kind="tcp")) < 10, 10)


# Limits of time


def test_a_head_a_byte_at_a_time_is_ended(impatient: HttpFrontEnd) -> None:
    with RawConnection(impatient.port) as connection:
        started = time.monotonic()
        drip(connection, HEAD + b"X: " + b"a" * 10_000)
        assert 0.6 <= time.monotonic() - started < OVER_S


def test_a_head_a_byte_at_a_time_is_ended_on_a_used_connection_too(impatient: HttpFrontEnd) -> None:
    with RawConnection(impatient.port) as connection:
        connection.ask(PING)
        drip(connection, HEAD + b"X: " + b"a" * 10_000)


def test_blank_lines_do_not_keep_an_idle_connection(impatient: HttpFrontEnd) -> None:
    with RawConnection(impatient.port) as connection:
        connection.ask(PING)
        drip(connection, b"\r\n" * 5000)


def test_an_idle_connection_is_closed(impatient: HttpFrontEnd) -> None:
    with RawConnection(impatient.port) as fresh, RawConnection(impatient.port) as used:
        used.ask(PING)
        assert used.is_closed(OVER_S)
        assert fresh.is_closed(OVER_S)


def test_a_body_that_stops_is_408(impatient: HttpFrontEnd) -> None:
    with RawConnection(impatient.port) as connection:
        answer = connection.ask(HEAD + b"Content-Length: 100000\r\n\r\n" + bytes(70_000))
        assert (answer.status, answer.json()["error"]) == (408, "request_timeout")
        assert connection.is_closed(OVER_S)


@pytest.mark.parametrize("framing", [b"Content-Length: 90000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n"])
def test_a_body_a_byte_at_a_time_is_ended_in_all(impatient: HttpFrontEnd, framing: bytes) -> None:
    with RawConnection(impatient.port) as connection:
        connection.send(HEAD + framing)
        drip(connection, bytes(90_000))


def test_a_chunk_that_never_begins_is_ended(impatient: HttpFrontEnd) -> None:
    with RawConnection(impatient.port) as connection:
        connection.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;extension=")
        drip(connection, b"a" * 10_000)


def test_the_body_of_a_refused_request_does_not_keep_its_connection(impatient: HttpFrontEnd) -> None:
    with RawConnection(impatient.port) as connection:
        assert connection.ask(HEAD + b"Content-Length: 99999999999\r\n\r\n").status == 413
        drip(connection, bytes(10_000))


def test_a_client_that_never_takes_its_answer_gives_its_memory_back(impatient: HttpFrontEnd) -> None:
    (process,) = impatient.processes()
    impatient.post("test/size", str(24 * MB))
    before = process.memory_info().rss
    connections = [RawConnection(impatient.port) for _ in range(8)]
    try:
        for connection in connections:
            connection.send(request("test/size", b"%d" % (24 * MB)))
        wait_until(lambda: process.memory_info().rss - before > 60 * MB, 20)
        wait_until(lambda: process.memory_info().rss - before < 40 * MB, 20)
        wait_until(lambda: len(established(process, impatient.port)) == 0, OVER_S)
    finally:
        for connection in connections:
            connection.close()


def test_a_client_that_takes_its_answer_slowly_gets_all_of_it(impatient: HttpFrontEnd) -> None:
    with RawConnection(impatient.port) as connection:
        connection.send(request("test/size", b"%d" % (24 * MB)))
        status, headers = connection.head()
        assert (status, int(headers["content-length"])) == (200, 24 * MB)
        left = 24 * MB
        while left:  # some 2 s in all
            left -= len(connection.read(min(left, MB)))
            time.sleep(0.08)


def test_a_long_answer_is_no_idle_connection(impatient: HttpFrontEnd) -> None:
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(impatient.post, "test/hold", b"x")
        wait_until(lambda: impatient.engine.held, 5)
        time.sleep(1.5)  # longer than any of the small limits
        impatient.engine.release()
        assert answer.result().content == b"x"


def established(process: psutil.Process, port: int) -> list[object]:
    return [each for each in process.net_connections(kind="tcp") if each.status == "ESTABLISHED" and each.laddr.port == port]


def drip(connection: RawConnection, sent: bytes) -> None:
    """Send it a byte at a time, until the other side has had enough."""
    give_up = time.monotonic() + OVER_S
    connection.socket.settimeout(0.02)
    for number in range(len(sent)):
        try:
            connection.socket.send(sent[number : number + 1])
            data = connection.socket.recv(4096)
        except TimeoutError:
            data = b"-"
        except OSError:
            return
        if data == b"":
            return
        assert time.monotonic() < give_up, "the connection is still open"
    raise AssertionError(f"it took {len(sent)} bytes")


def test_the_log_is_json_whatever_was_sent(front_end: HttpFrontEnd) -> None:
    front_end.post("multipart/form-data; boundary=b", b"no boundary")
    for line in front_end.log.read_text().splitlines():
        json.loads(line)
