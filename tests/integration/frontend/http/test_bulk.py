"""Many requests in one: `multipart/mixed` in, `multipart/mixed` out, each answer as soon as it is there."""

from __future__ import annotations

import email
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import Message

import pytest
import requests

from integration.frontend.http.raw_connection import RawConnection, request
from integration.frontend.http_front_end import HttpFrontEnd
from multigpu_inference.messages import Health
from support import wait_until

BOUNDARY = b"a-boundary"
BULK = f"multipart/mixed; boundary={BOUNDARY.decode()}"


@dataclass(frozen=True)
class Part:
    """A request in a bulk request, or an answer in its answer."""

    headers: dict[str, str]
    body: bytes

    def encoded(self) -> bytes:
        lines = [f"{name}: {value}\r\n" for name, value in self.headers.items()]
        return b"--" + BOUNDARY + b"\r\n" + "".join(lines).encode() + b"\r\n" + self.body + b"\r\n"


def part(content_type: str, body: bytes, **headers: str) -> Part:
    return Part({"Content-Type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}, body)


def bulk(*parts: Part) -> bytes:
    return b"".join(each.encoded() for each in parts) + b"--" + BOUNDARY + b"--\r\n"


def answers(headers: Message | requests.structures.CaseInsensitiveDict[str], body: bytes) -> list[Part]:
    """The parts of an answer, by the standard library's reading."""
    assert headers["content-type"].startswith("multipart/mixed; boundary=")
    whole = email.message_from_bytes(b"Content-Type: " + headers["content-type"].encode() + b"\r\n\r\n" + body)
    assert not whole.defects
    _, *found = whole.walk()
    return [Part({name.lower(): value for name, value in each.items()}, bytes_of(each)) for each in found]


def bytes_of(message: Message) -> bytes:
    content = message.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content


def ask(server: HttpFrontEnd, *parts: Part) -> list[Part]:
    answer = server.post(BULK, bulk(*parts))
    assert answer.status_code == 200, answer.text
    return answers(answer.headers, answer.content)


def test_each_part_is_a_request_and_the_answers_are_in_their_order(front_end: HttpFrontEnd) -> None:
    given = ask(front_end, *(part("test/echo", b"%d" % number) for number in range(50)))
    assert [each.body for each in given] == [b"%d" % number for number in range(50)]
    assert {each.headers["status"] for each in given} == {"200 OK"}
    ids = [each.headers["x-amzn-sagemaker-custom-attributes"].split(";")[0] for each in given]
    assert len(set(ids)) == 50


def test_the_first_answer_comes_before_the_second_is_computed(front_end: HttpFrontEnd) -> None:
    with RawConnection(front_end.port) as connection:
        connection.send(request(BULK, bulk(part("test/hold", b"first"), part("test/hold", b"second"))))
        wait_until(lambda: len(front_end.engine.held) == 2, 5)
        front_end.engine.release(1)
        status, headers = connection.head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        first = connection.chunk()
        assert b"first" in first
        assert len(front_end.engine.held) == 1
        front_end.engine.release()
        rest = b""
        while chunk := connection.chunk():
            rest += chunk
        assert [each.body for each in answers(headers, first + rest)] == [b"first", b"second"]


def test_answers_that_are_there_early_wait_for_their_turn(front_end: HttpFrontEnd) -> None:
    with RawConnection(front_end.port) as connection:
        connection.send(request(BULK, bulk(part("test/hold", b"slow"), *[part("test/echo", b"%d" % n) for n in range(10)])))
        answered = front_end.engine.answered
        wait_until(lambda: front_end.engine.answered >= answered and front_end.engine.held, 5)
        front_end.engine.release()
        answer = connection.answer()
        assert [each.body for each in answers(answer.headers, answer.body)] == [b"slow", *(b"%d" % n for n in range(10))]


def test_a_part_that_fails_has_its_own_status(front_end: HttpFrontEnd) -> None:
    given = ask(
        front_end,
        part("test/echo", b"good"),
        part("test/status", b"422"),
        part("test/status", b"500"),
        part("test/size", b"%d" % ((25 << 20) + 1)),
        part("test/echo", b"good too"),
    )
    assert [each.headers["status"].split(" ")[0] for each in given] == ["200", "422", "500", "500", "200"]
    assert b"response_too_large" in given[3].body
    assert (given[0].body, given[4].body) == (b"good", b"good too")


def test_a_part_keeps_its_content_id_and_its_own_headers_count(front_end: HttpFrontEnd) -> None:
    first, second = ask(
        front_end,
        part("test/describe", b"a", Content_ID="<one@x>", Accept="image/png"),
        part("test/describe", b"b"),
    )
    assert first.headers["content-id"] == "<one@x>"
    assert "content-id" not in second.headers
    assert b'"accept": "image/png"' in first.body
    assert b'"accept": "*/*"' in second.body


def test_large_parts_arrive_byte_for_byte(front_end: HttpFrontEnd) -> None:
    bodies = [os.urandom(size) for size in (0, 1, 60_000, 70_000, 3_000_000)]
    given = front_end.post(BULK, bulk(*(part("test/echo", body) for body in bodies)))
    for body in bodies:
        assert body in given.content
    assert given.content.count(b"Status: 200 OK\r\n") == len(bodies)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (BULK, b""),
        (BULK, b"no boundary"),
        (BULK, bulk(part("test/echo", b"x"))[:-4]),
        (BULK, part("test/echo", b"x").encoded()),
        (BULK, bulk(*[part("test/echo", b"x")] * 1001)),
        ("multipart/mixed", bulk(part("test/echo", b"x"))),
    ],
    ids=["empty", "no parts", "cut off in its end", "no end", "1001 parts", "no boundary"],
)
def test_a_bulk_request_that_cannot_be_taken_apart_is_400(front_end: HttpFrontEnd, content_type: str, body: bytes) -> None:
    answered = front_end.engine.answered
    answer = front_end.post(content_type, body)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert front_end.engine.answered == answered


def test_a_thousand_parts_are_answered(front_end: HttpFrontEnd) -> None:
    given = ask(front_end, *(part("test/echo", b"%d" % number) for number in range(1000)))
    assert [each.body for each in given] == [b"%d" % number for number in range(1000)]


def test_parts_take_half_of_the_engine_at_a_time_and_others_come_in_beside(
    new_front_end: Callable[..., HttpFrontEnd],
) -> None:
    server = new_front_end()
    server.engine.health = Health("healthy", 1, 1, 4)
    server.start().ready()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(ask, server, *(part("test/hold", b"%d" % number) for number in range(6)))
        wait_until(lambda: len(server.engine.held) == 2, 5)
        assert server.post("test/echo", b"beside").content == b"beside"
        assert len(server.engine.held) == 2
        for _ in range(3):
            wait_until(lambda: len(server.engine.held) == 2, 5)
            server.engine.release()
        assert [each.body for each in running.result()] == [b"%d" % number for number in range(6)]


def test_parts_that_find_the_engine_full_wait_for_their_turn(new_front_end: Callable[..., HttpFrontEnd]) -> None:
    server = new_front_end()
    server.engine.health = Health("healthy", 1, 1, 2)
    server.start().ready()
    with ThreadPoolExecutor(3) as threads:
        others = [threads.submit(server.post, "test/hold", b"other") for _ in range(2)]
        wait_until(lambda: len(server.engine.held) == 2, 5)
        assert server.post(BULK, bulk(part("test/echo", b"x"))).status_code == 503  # known before its body is read
        server.engine.release()
        assert {other.result().status_code for other in others} == {200}
        assert ask(server, *(part("test/echo", b"x") for _ in range(20)))[19].body == b"x"


def test_several_bulk_requests_and_single_ones_at_a_time(front_end: HttpFrontEnd) -> None:
    def one_bulk(number: int) -> bool:
        bodies = [b"%d-%d" % (number, each) * 10_000 for each in range(10)]
        return [each.body for each in ask(front_end, *(part("test/echo", body) for body in bodies))] == bodies

    def single(number: int) -> bool:
        return front_end.post("test/echo", b"%d" % number).content == b"%d" % number

    with ThreadPoolExecutor(8) as threads:
        bulks = [threads.submit(one_bulk, number) for number in range(8)]
        singles = [threads.submit(single, number) for number in range(100)]
        assert all(each.result() for each in [*bulks, *singles])


def test_a_client_that_leaves_in_the_middle_cancels_the_rest(front_end: HttpFrontEnd) -> None:
    cancelled = len(front_end.engine.cancelled)
    with RawConnection(front_end.port) as connection:
        connection.send(request(BULK, bulk(*[part("test/hold", b"x")] * 4)))
        wait_until(lambda: len(front_end.engine.held) == 4, 5)
        front_end.engine.release(1)
        connection.head()
        connection.chunk()
    wait_until(lambda: len(front_end.engine.cancelled) == cancelled + 3, 5)
    assert front_end.engine.held == []
    assert front_end.post("test/echo", b"x").content == b"x"


def test_a_client_that_leaves_is_no_error_in_the_log(front_end: HttpFrontEnd) -> None:
    assert front_end.events("http_server_error") == []
    assert "Traceback" not in front_end.log.read_text()


def test_garbage_behind_a_bulk_request_does_not_stand_in_its_answer(front_end: HttpFrontEnd) -> None:
    with RawConnection(front_end.port) as connection:
        connection.send(request(BULK, bulk(part("test/hold", b"first"), part("test/hold", b"second"))))
        wait_until(lambda: len(front_end.engine.held) == 2, 5)
        front_end.engine.release(1)
        _, headers = connection.head()
        body = connection.chunk()
        connection.send(b"\x00garbage\r\n\r\n")
        front_end.engine.release()
        while chunk := connection.chunk():
            body += chunk
        assert [each.body for each in answers(headers, body)] == [b"first", b"second"]
        assert connection.is_closed(5)


def test_the_engines_end_in_the_middle_is_a_status_of_each_part(new_front_end: Callable[..., HttpFrontEnd]) -> None:
    server = new_front_end().start().ready()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(ask, server, part("test/echo", b"x"), *[part("test/hold", b"x")] * 3)
        wait_until(lambda: len(server.engine.held) == 3, 5)
        server.engine.stop()
        statuses = [each.headers["status"] for each in running.result()]
    assert statuses == ["200 OK", *["503 Service Unavailable"] * 3]
