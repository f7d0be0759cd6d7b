"""`invoke_endpoint_async` through the proxy with real boto3: what becomes a file, and which."""

from __future__ import annotations

import json
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from runtime_async import AsyncInvocations
from runtime_proxy import ProxySettings, RuntimeProxy
from support import wait_until
from unit.deploy.stand_in_container import StandInContainer, runtime_session


@pytest.fixture(scope="module")
def shared_container() -> Iterator[StandInContainer]:
    with StandInContainer() as running:
        yield running


@pytest.fixture
def container(shared_container: StandInContainer) -> StandInContainer:
    shared_container.seen = 0
    return shared_container


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("answers")


@pytest.fixture(scope="module")
def proxy(shared_container: StandInContainer, answers: Path) -> Iterator[RuntimeProxy]:
    settings = ProxySettings("demo", shared_container.port, answers, log="file:///log", async_concurrency=1)
    with RuntimeProxy(settings) as running:
        yield running


@pytest.fixture
def runtime(proxy: RuntimeProxy, container: StandInContainer) -> Any:
    config = Config(retries={"total_max_attempts": 1})
    return runtime_session().client("sagemaker-runtime", endpoint_url=proxy.url, config=config)


def path_of(location: str) -> Path:
    assert location.startswith("file:///")
    return Path(urlsplit(location).path)


def content(location: str) -> bytes:
    """What comes to lie there."""
    path = path_of(location)
    wait_until(path.exists, 10)
    return path.read_bytes()


def test_a_file_goes_to_the_container_and_its_answer_becomes_a_file(runtime: Any, tmp_path: Path, answers: Path) -> None:
    (tmp_path / "a request.json").write_text('{"echo": true}')
    taken = runtime.invoke_endpoint_async(
        EndpointName="demo",
        InputLocation=(tmp_path / "a request.json").as_uri(),
        ContentType="application/json",
        Accept="image/png",
        CustomAttributes="a=1",
        InferenceId="request-7",
    )
    assert taken["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert taken["InferenceId"] == "request-7"
    seen = json.loads(content(taken["OutputLocation"]))
    assert {seen["content-type"], seen["accept"], seen["x-amzn-sagemaker-custom-attributes"]} == {
        "application/json",
        "image/png",
        "a=1",
    }
    assert path_of(taken["OutputLocation"]).parent == answers
    assert not path_of(taken["FailureLocation"]).exists()


def test_a_small_body_may_come_with_the_request_and_the_answer_gets_a_name(runtime: Any, answers: Path) -> None:
    taken = runtime.invoke_endpoint_async(
        EndpointName="demo", Body=b'{"text": "inline"}', S3OutputPathExtension="mattes/today", Filename="chick.png"
    )
    assert content(taken["OutputLocation"]) == b"inline"
    assert path_of(taken["OutputLocation"]) == answers / "mattes" / "today" / "chick.png"
    assert taken["InferenceId"]


def test_an_error_of_the_container_becomes_the_failure_file(runtime: Any) -> None:
    taken = runtime.invoke_endpoint_async(EndpointName="demo", Body=b'{"status": 500, "text": "broken"}', InferenceId="r")
    failure = json.loads(content(taken["FailureLocation"]))
    assert (failure["InferenceId"], failure["OriginalStatusCode"], failure["OriginalMessage"]) == ("r", 500, "broken")
    assert not path_of(taken["OutputLocation"]).exists()


def test_an_input_that_is_not_there_becomes_the_failure_file_and_the_next_request_is_served(
    runtime: Any, tmp_path: Path, container: StandInContainer
) -> None:
    taken = runtime.invoke_endpoint_async(EndpointName="demo", InputLocation=(tmp_path / "none").as_uri())
    assert "No such file" in json.loads(content(taken["FailureLocation"]))["OriginalMessage"]
    assert container.seen == 0
    assert content(runtime.invoke_endpoint_async(EndpointName="demo", Body=b"{}")["OutputLocation"]) == b"answered"


def test_its_own_time_limit_holds_for_the_container(runtime: Any) -> None:
    taken = runtime.invoke_endpoint_async(EndpointName="demo", Body=b'{"sleep_s": 1.5}', InvocationTimeoutSeconds=1)
    assert json.loads(content(taken["FailureLocation"]))["OriginalStatusCode"] == 0


def test_it_is_taken_at_once_and_waits_for_its_turn(runtime: Any, container: StandInContainer) -> None:
    taken = [runtime.invoke_endpoint_async(EndpointName="demo", Body=b'{"sleep_s": 0.2}') for _ in range(4)]
    assert container.seen <= 2
    assert [content(each["OutputLocation"]) for each in taken] == [b"answered"] * 4


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"InputLocation": "file:///a", "Body": b"{}"},
        {"InputLocation": "https://bucket/key"},
        {"Body": b"{}", "S3OutputPathExtension": "../elsewhere"},
        {"Body": b"{}", "S3OutputPathExtension": "/elsewhere"},
        {"Body": b"{}", "Filename": "../answer"},
        {"Body": b"{}", "Filename": "a.tar.gz"},
        {"Body": b"{}", "RequestTTLSeconds": 21_601},
        {"Body": b"{}", "InvocationTimeoutSeconds": 3601},
    ],
)
def test_what_cannot_be_meant_is_refused(runtime: Any, container: StandInContainer, arguments: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint_async(EndpointName="demo", **arguments)
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert container.seen == 0


def test_a_body_that_is_too_long_for_a_request_is_refused(runtime: Any) -> None:
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint_async(EndpointName="demo", Body=b"x" * 128_001)
    assert caught.value.response["Error"]["Message"] == "HTTP content length exceeded 128000 bytes."


def test_a_full_queue_is_told(runtime: Any, proxy: RuntimeProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy._server is not None
    waiting = proxy._server.asynchronous._waiting
    monkeypatch.setattr(waiting, "maxsize", 1)
    runtime.invoke_endpoint_async(EndpointName="demo", Body=b'{"sleep_s": 0.3}')
    wait_until(waiting.empty, 5)  # it is worked on
    last = runtime.invoke_endpoint_async(EndpointName="demo", Body=b"{}")
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint_async(EndpointName="demo", Body=b"{}")
    assert caught.value.response["Error"]["Code"] == "ServiceUnavailable"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert content(last["OutputLocation"]) == b"answered"


def test_what_has_waited_too_long_is_not_worked_on(container: StandInContainer, tmp_path: Path) -> None:
    now = [1000.0]
    invocations = AsyncInvocations(container.port, tmp_path, clock=lambda: now[0])
    headers = Message()
    headers["X-Amzn-SageMaker-RequestTTLSeconds"] = "60"
    late, patient = invocations.submit(headers, {}, b"{}"), invocations.submit(Message(), {}, b"{}")
    now[0] += 61
    invocations.start()
    wait_until(lambda: late.failure.exists() and patient.output.exists(), 5)
    invocations.stop()
    assert "RequestTTLSeconds" in json.loads(late.failure.read_bytes())["OriginalMessage"]
    assert container.seen == 1


def test_what_waits_when_it_stops_becomes_a_failure(container: StandInContainer, tmp_path: Path) -> None:
    with RuntimeProxy(ProxySettings("demo", container.port, tmp_path, async_concurrency=1)) as proxy:
        runtime = runtime_session().client("sagemaker-runtime", endpoint_url=proxy.url)
        first, *others = [runtime.invoke_endpoint_async(EndpointName="demo", Body=b'{"sleep_s": 0.3}') for _ in range(3)]
        wait_until(lambda: container.seen == 1, 5)
    assert path_of(first["OutputLocation"]).read_bytes() == b"answered"
    failures = [json.loads(path_of(other["FailureLocation"]).read_bytes()) for other in others]
    assert [failure["OriginalMessage"] for failure in failures] == ["the local endpoint has been stopped"] * 2
    assert container.seen == 1


def test_stopping_before_any_request_returns_at_once(tmp_path: Path) -> None:
    invocations = AsyncInvocations(1, tmp_path)
    invocations.start()
    invocations.stop()
    assert list(tmp_path.iterdir()) == []
