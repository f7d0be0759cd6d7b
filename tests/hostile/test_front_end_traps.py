"""What multi-model-server does of itself and cannot be told not to: it costs nobody else anything.

Its other traps have their tests where their way round is; `docs/reliability.md` lists them all.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
from collections import Counter
from collections.abc import Iterator

import pytest
import requests

from integration.endpoint import Endpoint
from integration.frontend.http.raw_connection import RawConnection, request
from integration.kinds import mms_only
from multigpu_inference.config import MMS
from support import wait_until

pytestmark = [pytest.mark.hostile, mms_only]
MB = 1 << 20
BINARY = "application/octet-stream"


@pytest.fixture(scope="module")
def reverses(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    server = Endpoint(
        tmp_path_factory.mktemp("traps"),
        MULTIGPU_FRONT_END=kind,
        MULTIGPU_PREPROCESS="pool",
        SAGEMAKER_MODEL_SERVER_WORKERS="12",
    )
    try:
        server.with_script("reverses").start().ready()
        wait_until(lambda: len(server.processes("model_service_worker")) == 13, 30)  # and their parent
        yield server
    finally:
        server.clean_up()


@pytest.fixture(autouse=True)
def _it_goes_on(reverses: Endpoint) -> Iterator[None]:
    """Whatever a test does, no process of the front end is lost by it, and the next request is answered."""
    before = {process.pid for process in reverses.processes("model_service_worker")}
    yield
    body = os.urandom(1000)
    assert reverses.invoke(body, BINARY).content == body[::-1]
    assert {process.pid for process in reverses.processes("model_service_worker")} >= before
    assert "OutOfMemory" not in reverses.log.read_text()


def test_connections_that_never_finish_keep_nobody_out(reverses: Endpoint) -> None:
    """It has no time limit for reading: they stay open, and cost no more than that."""
    head = request(BINARY, bytes(1000))
    slow = [RawConnection(reverses.port).send(head[: (5, 40, len(head) - 1)[number % 3]]) for number in range(300)]
    try:
        for number in range(50):
            body = b"%d" % number
            assert reverses.invoke(body, BINARY).content == body[::-1]
    finally:
        for connection in slow:
            connection.close()


def test_clients_that_leave_cost_the_next_ones_nothing(reverses: Endpoint) -> None:
    for number in range(40):
        with RawConnection(reverses.port) as connection:
            connection.send(request(BINARY, b"left behind %d" % number))
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        bodies = [b"own %d" % number for number in range(40)]
        answers = list(threads.map(lambda body: _answered(reverses, body), bodies))
    assert answers == [body[::-1] for body in bodies]


def _answered(endpoint: Endpoint, body: bytes) -> bytes:
    while (answer := endpoint.invoke(body, BINARY)).status_code == 503:  # what was left behind still has its places
        continue
    return answer.content


def test_pipelined_requests_are_all_answered_in_whatever_order(reverses: Endpoint) -> None:
    bodies = [b"number %d" % number for number in range(8)]
    with RawConnection(reverses.port) as connection:
        connection.send(*[request(BINARY, body) for body in bodies])
        answers = [connection.answer().body for _ in bodies]
    assert sorted(answers) == sorted(body[::-1] for body in bodies)


def test_bad_requests_fail_alone_and_each_answer_has_its_own_type(reverses: Endpoint) -> None:
    """Nothing is batched there, where one bad request fails all, and the first one's type is taken for all."""

    def one(number: int) -> requests.Response:
        if number % 2:
            return reverses.invoke(b"a=b", "application/x-www-form-urlencoded; charset=utf-8")
        return reverses.invoke(b"%d" % number, BINARY)

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(one, range(40)))
    for number, answer in enumerate(answers):
        if number % 2:
            assert answer.status_code >= 400
        else:
            assert (answer.status_code, answer.content) == (200, (b"%d" % number)[::-1])
            assert answer.headers["Content-Type"] == BINARY


def test_many_large_requests_at_a_time_fit_into_javas_memory(reverses: Endpoint) -> None:
    body = os.urandom(5 * MB)
    expected = body[::-1]

    def one(_: int) -> str:
        answer = reverses.invoke(body, BINARY)
        return "right" if answer.content == expected else str(answer.status_code)

    with concurrent.futures.ThreadPoolExecutor(64) as threads:
        found = Counter(threads.map(one, range(64)))
    assert set(found) <= {"right", "503"}
    assert found["right"] > 0


def test_the_settings_that_go_round_the_others_are_set(reverses: Endpoint) -> None:
    """As Java has them: from the configuration that was written for it, and its command line."""
    assert reverses.environment["MULTIGPU_FRONT_END"] == MMS
    (folder,) = (path for path in reverses.temporary.iterdir() if (path / "front-end").is_dir())
    lines = (folder / "front-end" / "mms.properties").read_text().splitlines()
    properties = dict(line.split("=", 1) for line in lines if "=" in line)
    assert "batch_size" not in json.dumps(properties)
    (java,) = reverses.processes("com.amazonaws.ml.mms.ModelServer")
    environment = java.environ()
    assert environment["MMS_MANAGEMENT_ADDRESS"].startswith("unix:")
    assert "-Xmx2g" in environment["SAGEMAKER_MODEL_SERVER_VMARGS"]
    assert int(environment["MMS_MAX_RESPONSE_SIZE"]) == 25 * MB
    assert (folder / "front-end" / "management.sock").is_socket()
