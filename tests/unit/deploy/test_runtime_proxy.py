"""The runtime proxy before real boto3, with a container behind it that misbehaves on request."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

from runtime_proxy import ProxySettings, RuntimeProxy
from support import free_port
from unit.deploy.stand_in_container import StandInContainer, runtime_session


@pytest.fixture(scope="module")
def shared_container() -> Iterator[StandInContainer]:
    with StandInContainer() as running:
        yield running


@pytest.fixture
def container(shared_container: StandInContainer) -> StandInContainer:
    shared_container.seen = 0
    shared_container.go_on.clear()
    return shared_container


@pytest.fixture(scope="module")
def settings(shared_container: StandInContainer, tmp_path_factory: pytest.TempPathFactory) -> ProxySettings:
    folder = tmp_path_factory.mktemp("answers")
    return ProxySettings(endpoint="demo", container_port=shared_container.port, output=folder, log="file:///log")


@pytest.fixture(scope="module")
def proxy(settings: ProxySettings) -> Iterator[RuntimeProxy]:
    with RuntimeProxy(settings) as running:
        yield running


@pytest.fixture
def start(settings: ProxySettings) -> Iterator[Callable[..., RuntimeProxy]]:
    """Start a proxy with other settings."""
    running: list[RuntimeProxy] = []

    def enter(**changes: Any) -> RuntimeProxy:
        running.append(RuntimeProxy(replace(settings, **changes)).__enter__())
        return running[-1]

    yield enter
    for proxy in running:
        proxy.__exit__(None, None, None)


@pytest.fixture
def runtime(proxy: RuntimeProxy, container: StandInContainer, monkeypatch: pytest.MonkeyPatch) -> Any:
    return client(proxy, monkeypatch)


def client(proxy: RuntimeProxy, monkeypatch: pytest.MonkeyPatch) -> Any:
    """boto3's, as an application has it: only the environment says where the runtime is."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", proxy.url)
    return runtime_session().client(
        "sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}, max_pool_connections=32)
    )


def tell(runtime: Any, endpoint: str = "demo", **told: Any) -> Any:
    return runtime.invoke_endpoint(EndpointName=endpoint, ContentType="application/json", Body=json.dumps(told))


def refused(runtime: Any, **told: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        tell(runtime, **told)
    response: dict[str, Any] = caught.value.response
    return response


def test_what_the_api_has_reaches_the_container_and_nothing_else(runtime: Any) -> None:
    answer = runtime.invoke_endpoint(
        EndpointName="demo",
        Body=b'{"echo": true}',
        ContentType="application/json",
        Accept="image/png;cutout",
        CustomAttributes="a=1;b=two",
        InferenceId="request-7",
        TargetVariant="AllTraffic",
        SessionId="NEW_SESSION",
    )
    seen = json.loads(answer["Body"].read())
    assert {name: seen.get(name) for name in seen if name not in ("host", "accept-encoding", "content-length")} == {
        "path": "/invocations",
        "content-type": "application/json",
        "accept": "image/png;cutout",
        "x-amzn-sagemaker-custom-attributes": "a=1;b=two",
        "x-amzn-sagemaker-inference-id": "request-7",
        "x-amzn-sagemaker-target-variant": "AllTraffic",
        "x-amzn-sagemaker-session-id": "NEW_SESSION",
    }


def test_what_the_api_has_comes_back(runtime: Any) -> None:
    headers = {
        "Content-Type": "image/png",
        "X-Amzn-SageMaker-Custom-Attributes": "replica=1;queue_ms=0.1",
        "X-Amzn-SageMaker-New-Session-Id": "7",
        "X-Other": "dropped",
    }
    answer = tell(runtime, text="a matte", headers=headers)
    assert answer["Body"].read() == b"a matte"
    assert (answer["ContentType"], answer["CustomAttributes"]) == ("image/png", "replica=1;queue_ms=0.1")
    assert (answer["NewSessionId"], answer["InvokedProductionVariant"]) == ("7", "AllTraffic")
    sent = answer["ResponseMetadata"]
    assert sent["RequestId"]
    assert "x-other" not in sent["HTTPHeaders"]


@pytest.mark.parametrize(
    ("status", "whose"), [(400, "client"), (415, "client"), (429, "client"), (500, "server"), (503, "server")]
)
def test_an_error_of_the_container_is_a_model_error(runtime: Any, status: int, whose: str) -> None:
    text = json.dumps({"error": "as_told", "retry_after_s": 1})
    response = refused(runtime, status=status, text=text, headers={"Retry-After": "1"})
    assert response["Error"]["Code"] == "ModelError"
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert (response["OriginalStatusCode"], response["OriginalMessage"]) == (status, text)
    assert response["LogStreamArn"] == "file:///log"
    assert response["Error"]["Message"].startswith(f"Received {whose} error ({status}) from primary with message")


def test_after_an_error_the_same_connection_serves_the_next_request(runtime: Any) -> None:
    refused(runtime, status=500)
    assert tell(runtime)["Body"].read() == b"answered"


def test_a_container_that_is_slow_is_a_model_error_with_status_0(
    start: Callable[..., RuntimeProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = client(start(answer_limit_s=0.3), monkeypatch)
    response = refused(runtime, sleep_s=1.5)
    assert (response["Error"]["Code"], response["OriginalStatusCode"]) == ("ModelError", 0)
    assert response["OriginalMessage"].startswith("Your invocation timed out while waiting for a response from container")
    assert tell(runtime)["Body"].read() == b"answered"


def test_a_container_that_drips_is_no_quicker(start: Callable[..., RuntimeProxy], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time; the answer does not."""
    began = time.monotonic()
    response = refused(client(start(answer_limit_s=0.4), monkeypatch), drip_s=0.1)
    assert response["OriginalStatusCode"] == 0
    assert time.monotonic() - began < 3


def test_an_answer_that_is_cut_off_is_a_model_error(runtime: Any) -> None:
    response = refused(runtime, cut=True)
    assert response["OriginalStatusCode"] == 200
    assert "could not load the entire response body" in response["Error"]["Message"]
    assert tell(runtime)["Body"].read() == b"answered"


def test_a_container_that_is_gone_is_a_model_error(start: Callable[..., RuntimeProxy], monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    response = refused(client(start(container_port=port), monkeypatch))
    assert (response["Error"]["Code"], response["OriginalStatusCode"]) == ("ModelError", 0)
    assert response["OriginalMessage"] == f"no answer from the container on port {port}: Connection refused"


def test_an_unknown_endpoint_is_not_found(runtime: Any) -> None:
    response = refused(runtime, endpoint="other")
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == ("ValidationError", 400)
    assert response["Error"]["Message"].startswith("Endpoint other not found")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("TargetVariant", "shadow"),
        ("TargetModel", "model-1.tar.gz"),
        ("TargetContainerHostname", "second"),
        ("InferenceComponentName", "component"),
        ("CustomAttributes", "x" * 1025),
    ],
)
def test_what_does_not_suit_the_endpoint_is_refused_without_asking_the_container(
    runtime: Any, container: StandInContainer, argument: str, value: str
) -> None:
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(EndpointName="demo", Body=b"{}", **{argument: value})
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert container.seen == 0


def test_a_body_at_the_limit_passes_and_one_byte_more_is_413(
    start: Callable[..., RuntimeProxy], container: StandInContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = client(start(max_payload_bytes=3_000_000), monkeypatch)
    at_limit = b'{"text": "' + b"x" * (3_000_000 - 12) + b'"}'
    assert len(runtime.invoke_endpoint(EndpointName="demo", Body=at_limit)["Body"].read()) == 3_000_000 - 12
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(EndpointName="demo", Body=at_limit + b" ")
    response = caught.value.response
    assert (response["Error"]["Code"], response["Error"]["Message"]) == ("413", "HTTP content length exceeded 3000000 bytes.")
    assert container.seen == 1
    assert tell(runtime)["Body"].read() == b"answered"


def test_an_answer_over_the_limit_is_a_model_error(start: Callable[..., RuntimeProxy], monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = client(start(max_payload_bytes=100_000), monkeypatch)
    assert len(tell(runtime, size=100_000)["Body"].read()) == 100_000
    response = refused(runtime, size=100_001)
    assert (response["Error"]["Code"], response["OriginalMessage"]) == ("ModelError", "the answer has more than 100000 bytes")


def test_a_body_above_what_the_api_model_says_is_told_once(settings: ProxySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with RuntimeProxy(settings, said.append) as proxy:
        runtime = client(proxy, monkeypatch)
        for length in (6_291_456, 7_000_000, 7_000_000):
            runtime.invoke_endpoint(EndpointName="demo", Body=b"{}" + b" " * (length - 2))
    assert [text[:24] for text in said] == ["a request has 7.0 MB: Sa"]


def test_requests_at_the_same_time_each_get_their_own_answer(runtime: Any) -> None:
    with ThreadPoolExecutor(24) as callers:
        answers = list(callers.map(lambda n: tell(runtime, text=f"answer {n}", sleep_s=0.05)["Body"].read(), range(96)))
    assert answers == [f"answer {n}".encode() for n in range(96)]


def test_a_request_does_not_wait_for_an_acknowledgement(runtime: Any) -> None:
    """Without TCP_NODELAY an answer that leaves in two packets takes 40 ms longer."""
    times = []
    for _ in range(15):
        began = time.monotonic()
        tell(runtime, size=20_000)["Body"].read()
        times.append(time.monotonic() - began)
    assert sorted(times)[7] < 0.03


def test_the_answer_is_streamed_as_it_comes(runtime: Any, container: StandInContainer) -> None:
    answer = runtime.invoke_endpoint_with_response_stream(
        EndpointName="demo",
        Body=json.dumps({"pieces": ["first", "second"], "headers": {"X-Amzn-SageMaker-Custom-Attributes": "replica=0"}}),
        ContentType="application/json",
        Accept="text/plain",
    )
    assert (answer["ContentType"], answer["CustomAttributes"]) == ("text/plain", "replica=0")
    events = iter(answer["Body"])
    assert next(events) == {"PayloadPart": {"Bytes": b"first"}}  # the container has not sent the second yet
    container.go_on.set()
    assert list(events) == [{"PayloadPart": {"Bytes": b"second"}}]


def test_a_stream_asks_for_the_type_in_a_header_of_its_own(runtime: Any) -> None:
    answer = runtime.invoke_endpoint_with_response_stream(EndpointName="demo", Body=b'{"echo": true}', Accept="image/png")
    seen = json.loads(b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"]))
    assert seen["accept"] == "image/png"


def test_a_stream_that_breaks_says_so_in_the_stream(runtime: Any, container: StandInContainer) -> None:
    container.go_on.set()
    answer = runtime.invoke_endpoint_with_response_stream(EndpointName="demo", Body=b'{"pieces": ["first"], "break": true}')
    with closing(answer["Body"]) as events, pytest.raises(EventStreamError) as caught:
        list(events)
    assert caught.value.response["Error"]["Code"] == "ModelStreamError"
    assert tell(runtime)["Body"].read() == b"answered"


def test_a_stream_that_takes_too_long_says_so_in_the_stream(
    start: Callable[..., RuntimeProxy], container: StandInContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = client(start(stream_limit_s=0.3), monkeypatch)
    began = time.monotonic()
    answer = runtime.invoke_endpoint_with_response_stream(EndpointName="demo", Body=b'{"pieces": ["first", "never"]}')
    with closing(answer["Body"]) as events, pytest.raises(EventStreamError, match="timed out"):
        list(events)
    assert time.monotonic() - began < 5


def test_an_error_before_a_stream_begins_is_a_model_error(runtime: Any) -> None:
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint_with_response_stream(EndpointName="demo", Body=b'{"status": 503}')
    assert caught.value.response["OriginalStatusCode"] == 503


def ask(proxy: RuntimeProxy, method: str, path: str, headers: dict[str, str], body: bytes = b"{}") -> tuple[int, Any]:
    """A request that boto3 would not send."""
    connection = http.client.HTTPConnection("127.0.0.1", int(proxy.url.rpartition(":")[2]), timeout=10)
    try:
        connection.putrequest(method, path)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/endpoints/demo/nothing", {"Content-Length": "2"}, 404),
        ("POST", "/", {"Content-Length": "2"}, 404),
        ("POST", "/endpoints/demo/invocations", {"Content-Length": "two"}, 400),
        ("POST", "/endpoints/demo/invocations", {"Content-Length": "-2"}, 400),
        ("POST", "/endpoints/demo/invocations", {"Transfer-Encoding": "chunked"}, 400),
        ("POST", "/endpoints/demo/invocations", {"Content-Length": "2", "Origin": "https://example.com"}, 400),
        ("GET", "/endpoints/demo/invocations", {}, 501),
    ],
)
def test_what_is_no_request_of_the_runtime_is_refused(
    proxy: RuntimeProxy,
    container: StandInContainer,
    method: str,
    path: str,
    headers: dict[str, str],
    status: int,
) -> None:
    answered, body = ask(proxy, method, path, headers)
    assert (answered, container.seen) == (status, 0)
    assert body["Message"]


def test_its_port_is_free_afterwards_and_a_taken_one_is_an_error(settings: ProxySettings) -> None:
    port = free_port()
    for _ in range(2):
        with RuntimeProxy(replace(settings, port=port)) as proxy:
            assert proxy.url == f"http://127.0.0.1:{port}"
            with pytest.raises(OSError, match="in use"):
                RuntimeProxy(replace(settings, port=port)).__enter__()
