"""What the example's client makes of errors. That it gets a matte is shown in `integration/deploy_local`."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from botocore.exceptions import ReadTimeoutError
from botocore.stub import Stubber

from examples import client as example
from examples.client import InvocationError, explain, invoke, make_client, wait_before_retry

OVERLOADED = json.dumps({"error": "overloaded", "message": "the queue is full", "request_id": "r", "retry_after_s": 3})
WORKER_DIED = json.dumps({"error": "worker_died", "message": "the process that served the request ended", "request_id": "r"})


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


def model_error(status: int, message: str) -> dict[str, Any]:
    return {"Error": {"Code": "ModelError", "Message": "m"}, "OriginalStatusCode": status, "OriginalMessage": message}


def test_the_client_waits_longer_than_sagemaker_and_sends_nothing_twice() -> None:
    config = make_client(64).meta.config
    assert config.read_timeout > 60
    assert config.retries["total_max_attempts"] == 1
    assert config.max_pool_connections == 64


@pytest.mark.parametrize(
    ("response", "low", "high"),
    [
        (model_error(503, OVERLOADED), 3.0, 4.5),
        (model_error(503, "the front end's own words"), 0.5, 0.75),
        ({"Error": {"Code": "ThrottlingException"}}, 0.5, 0.75),
        ({"Error": {"Code": "ServiceUnavailable"}}, 0.5, 0.75),
    ],
)
def test_a_refusal_because_all_are_busy_is_sent_again_when_it_says(response: dict[str, Any], low: float, high: float) -> None:
    waits = [wait_before_retry(response, 1) for _ in range(20)]
    assert all(wait is not None and low <= wait <= high for wait in waits)
    assert len(set(waits)) > 1


def test_it_waits_longer_each_time() -> None:
    response = {"Error": {"Code": "ThrottlingException"}}
    waits = [wait_before_retry(response, attempt) or 0.0 for attempt in (1, 3, 5, 30)]
    assert 0.5 <= waits[0] < 2.0 <= waits[1] < 8.0 <= waits[2] < 20.0 <= waits[3] <= 30.0


@pytest.mark.parametrize(
    "response",
    [
        model_error(503, WORKER_DIED),
        model_error(0, "Your invocation timed out"),
        model_error(500, "x"),
        model_error(415, "x"),
        {"Error": {"Code": "ValidationError"}},
        {"Error": {"Code": "413"}},
    ],
)
def test_what_somebody_may_have_worked_on_or_will_never_succeed_is_not_sent_again(response: dict[str, Any]) -> None:
    assert wait_before_retry(response, 1) is None


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (model_error(415, '{"error": "e", "message": "no picture"}'), "the request is not one it takes (415): no picture"),
        (model_error(500, "Internal\nerror"), "the container failed (500): Internal error"),
        (model_error(0, "timed out"), "the container gave no answer in time: timed out"),
        ({"Error": {"Code": "ValidationError", "Message": "no endpoint"}}, "ValidationError: no endpoint"),
    ],
)
def test_what_went_wrong_is_one_line(response: dict[str, Any], text: str) -> None:
    assert explain(response) == text


def stubbed(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Stubber, list[float]]:
    client, slept = make_client(), list[float]()
    monkeypatch.setattr("time.sleep", slept.append)
    return client, Stubber(client), slept


def busy(stubber: Stubber) -> None:
    fields = {"OriginalStatusCode": 503, "OriginalMessage": OVERLOADED}
    stubber.add_client_error("invoke_endpoint", "ModelError", "m", 424, modeled_fields=fields)


def test_it_comes_again_and_gets_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    client, stubber, slept = stubbed(monkeypatch)
    busy(stubber)
    busy(stubber)
    stubber.add_response("invoke_endpoint", {"Body": Body(b"matte"), "CustomAttributes": "replica=1  "})
    with stubber:
        assert invoke(client, "demo", b"photo", "image/jpeg", "image/png") == (b"matte", "replica=1")
    assert len(slept) == 2


def test_it_gives_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    client, stubber, slept = stubbed(monkeypatch)
    for _ in range(example.ATTEMPTS):
        busy(stubber)
    with stubber, pytest.raises(InvocationError, match=r"the container failed \(503\): the queue is full"):
        invoke(client, "demo", b"photo", "image/jpeg", "image/png")
    assert len(slept) == example.ATTEMPTS - 1


def test_a_time_out_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    client, _, slept = stubbed(monkeypatch)
    sent = []

    def time_out(**_: Any) -> None:
        sent.append(1)
        raise ReadTimeoutError(endpoint_url="http://there")

    client.meta.events.register("before-send.sagemaker-runtime.InvokeEndpoint", time_out)
    with pytest.raises(InvocationError, match="no answer: Read timeout"):
        invoke(client, "demo", b"photo", "image/jpeg", "image/png")
    assert (len(sent), slept) == (1, [])


class Body:
    """What boto3 hands out as a body."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self) -> bytes:
        return self._content
