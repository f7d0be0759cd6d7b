"""Every hostile request is refused in one short line that tells nothing of the inside; good requests beside it are answered."""

from __future__ import annotations

import contextlib
import json
import re
import time

import pytest

from hostile.good_traffic import GoodTraffic
from hostile.hostile_bodies import PHOTO, hostile_bodies
from hostile.hostile_heads import hostile_heads
from hostile.hostile_request import HostileRequest
from integration.endpoint import Endpoint
from integration.frontend.http.raw_connection import RawConnection
from integration.kinds import KINDS
from multigpu_inference.config import MMS

ALL = [*hostile_bodies(), *hostile_heads()]
SHORT, LONG = 5, 200  # times each
PATIENCE_S, SILENCE_S = 10.0, 0.1
# What no client is to see: paths, addresses, modules, traces. And of ours, names of classes.
INSIDE = re.compile(
    rb"/(opt|tmp|usr|home|root|proc|etc|work)/|\.py\b|\.java\b|Traceback|\tat |0x[0-9a-f]{5}|\d+\.\d+\.\d+\.\d+|"
    rb"multigpu|\"models\":|modelName"
)
CLASS_NAMES = re.compile(rb"[a-z]Error\b|Exception\b|io\.netty|com\.amazonaws|numpy|torch|PIL\b")
# Lines of the log that would say that something here has failed.
FAULTS = (
    "front_end_error",
    "request_failed",
    "http_server_error",
    "task_failed",
    "worker_broken",
    "worker_died",
    "function_failed",
)


@pytest.mark.hostile
def test_there_are_many_and_each_has_a_name() -> None:
    assert len({request.name for request in ALL}) == len(ALL) > 300


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b'{\n  "models": [\n    {\n      "modelName": "model"\n    }\n  ]\n}\n'),
        (404, b'{\n  "code": 404,\n  "type": "a",\n  "message": "/opt/ml/model"\n}\n'),
        (500, b'{"error": "internal_error", "message": "the request failed"}\n'),
        (400, b'{"error": "bad_request", "message": "ValueError: 3"}\n'),
        (400, b'{"error": "bad_request", "message": "10.0.0.1 refused"}\n'),
        (400, b'{"error": "bad_request",\n "message": "two lines"}\n'),
        (400, b'{"error": "bad_request", "message": "%b"}\n' % (b"x" * 500)),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_must_not_be_answered_would_be_seen(kind: str, status: int, body: bytes) -> None:
    assert judge(HostileRequest("any", b""), kind, [(status, body)])


@pytest.mark.hostile
@pytest.mark.timeout(120)
def test_each_is_refused_and_good_requests_are_answered_meanwhile(strangers: Endpoint, kind: str) -> None:
    all_are_refused(strangers, kind, SHORT)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_each_two_hundred_times_beside_good_traffic_that_is_as_quick_as_before(strangers: Endpoint, kind: str) -> None:
    quiet_p99_s, p99_s = all_are_refused(strangers, kind, LONG)
    assert p99_s < 2 * quiet_p99_s


def all_are_refused(endpoint: Endpoint, kind: str, times: int) -> tuple[float, float]:
    """Send each so many times; the 99th percentiles of good requests' seconds, without hostile ones and beside them."""
    serving = {process.pid for word in ("model_service_worker", "frontend.http") for process in endpoint.processes(word)}
    with GoodTraffic(endpoint) as quiet:
        time.sleep(3 if times == SHORT else 20)
    wrong = list[str]()
    with GoodTraffic(endpoint) as beside:
        for request in ALL:
            for _ in range(1 if request.is_silent(kind) else times):
                found = judge(request, kind, asked(endpoint.port, request, kind))
                # Multi-model-server closes a connection over what is pipelined, and goes on with what came first: wait for it.
                if not found and request.answers > 1 and endpoint.invoke(PHOTO, "image/png").status_code != 200:
                    found = "the next one was not answered"
                if found:
                    wrong.append(f"{request}: {found}")
                    break
    print(f"\n{kind}: {len(ALL)} hostile requests {times} times, {len(quiet.seconds)} and {len(beside.seconds)} good ones")  # noqa: T201
    print(f"{kind}: good p99 {quiet.p99_s() * 1e3:.0f} ms without, {beside.p99_s() * 1e3:.0f} ms beside them")  # noqa: T201
    assert wrong == []
    assert (quiet.failed, beside.failed) == ([], [])
    assert {
        process.pid for word in ("model_service_worker", "frontend.http") for process in endpoint.processes(word)
    } >= serving
    assert [event for event in endpoint.all_events() if event["event"] in FAULTS] == []
    assert endpoint.invoke(PHOTO, "image/png").status_code == 200
    return quiet.p99_s(), beside.p99_s()


def asked(port: int, request: HostileRequest, kind: str) -> list[tuple[int, bytes]]:
    """Status and body of each answer, until the connection is closed or as many have come as may."""
    answers = list[tuple[int, bytes]]()
    patience_s = SILENCE_S if request.is_silent(kind) else PATIENCE_S
    with RawConnection(port, patience_s) as connection:
        with contextlib.suppress(OSError):  # it has been thrown out while it sent
            connection.send(request.sent)
        with contextlib.suppress(OSError):
            for _ in range(request.answers):
                answer = connection.answer(has_body=not request.sent.startswith(b"HEAD "))
                answers.append((answer.status, answer.body))
    return answers


def judge(request: HostileRequest, kind: str, answers: list[tuple[int, bytes]]) -> str:
    """What is wrong with the answers to a request; "" where they are right."""
    for status, body in answers:
        if request.succeeds(kind) and status == 200:
            continue
        if kind == MMS and is_its_own(body):
            if not (400 <= status < 500 or (request.own_of_mms and status == 500)) or INSIDE.search(body) or len(body) > 500:
                return f"{status} {body[:300]!r}"
        elif not 400 <= status < 500 or not is_one_line(body) or INSIDE.search(body) or CLASS_NAMES.search(body):
            return f"{status} {body[:300]!r}"
    return "" if answers or kind == MMS or request.succeeds(kind) else "no answer"


def is_its_own(body: bytes) -> bool:
    """Whether multi-model-server itself has answered: nothing of ours says `code`; or with no body at all."""
    with contextlib.suppress(ValueError):
        return not body or set(json.loads(body)) == {"code", "type", "message"}
    return False


def is_one_line(body: bytes) -> bool:
    """Whether it is a line of our JSON, and short; a HEAD has none."""
    if not body:
        return True
    return len(body) <= 500 and body.count(b"\n") == 1 and body.isascii() and {"error", "message"} <= set(json.loads(body))
