"""Real boto3, the runtime proxy, and the real container behind it with a script that does what it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from examples.client import invoke, make_client
from integration.endpoint import Endpoint
from multigpu_inference.config import HTTP
from runtime_proxy import ProxySettings, RuntimeProxy
from support import wait_until

pytestmark = pytest.mark.deploy


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    server = Endpoint(tmp_path_factory.mktemp("container"), MULTIGPU_FRONT_END=HTTP, MULTIGPU_MAX_QUEUE_SIZE="1").with_script(
        "commands"
    )
    try:
        yield server.start().ready()
    finally:
        server.clean_up()


@pytest.fixture(scope="module")
def proxy(container: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeProxy]:
    settings = ProxySettings("demo", container.port, tmp_path_factory.mktemp("answers"), variant="main")
    with RuntimeProxy(settings) as running:
        yield running


@pytest.fixture
def environment(proxy: RuntimeProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that an application needs to be told."""
    variables = {
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": proxy.url,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@pytest.fixture
def runtime(environment: None) -> Any:
    return boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))


def tell(runtime: Any, content_type: str = "application/json", **commands: Any) -> Any:
    return runtime.invoke_endpoint(EndpointName="demo", ContentType=content_type, Body=json.dumps(commands))


def test_the_containers_attributes_come_back_and_the_callers_reach_the_script(runtime: Any) -> None:
    answer = runtime.invoke_endpoint(
        EndpointName="demo", ContentType="application/json", Accept="application/json", Body="{}", CustomAttributes="from=here"
    )
    assert json.loads(answer["Body"].read())["input_fn"]["custom"] == "from=here"
    attributes = dict(pair.split("=") for pair in answer["CustomAttributes"].split(";"))
    assert attributes["replica"] in ("0", "1")
    assert (answer["ContentType"], answer["InvokedProductionVariant"]) == ("application/json", "main")


@pytest.mark.parametrize(
    ("commands", "content_type", "status"),
    [
        ({"input_fn": {"status": 400}}, "application/json", 400),
        ({}, "text/plain", 415),
        ({"predict_fn": {"raise": 1}}, "application/json", 500),
        ({"predict_fn": {"status": 503}}, "application/json", 503),
    ],
)
def test_the_containers_errors_are_model_errors_with_its_status_and_its_words(
    runtime: Any, commands: dict[str, Any], content_type: str, status: int
) -> None:
    with pytest.raises(ClientError) as caught:
        tell(runtime, content_type, **commands)
    response = caught.value.response
    assert (response["Error"]["Code"], response["OriginalStatusCode"]) == ("ModelError", status)
    assert set(json.loads(response["OriginalMessage"])) >= {"error", "message", "request_id"}
    assert "Traceback" not in response["OriginalMessage"]


def test_the_containers_own_limit_of_an_answer_shows_through(runtime: Any) -> None:
    assert len(tell(runtime, output_fn={"size": 25 << 20})["Body"].read()) == 25 << 20
    with pytest.raises(ClientError) as caught:
        tell(runtime, output_fn={"size": (25 << 20) + 1})
    assert json.loads(caught.value.response["OriginalMessage"])["error"] == "response_too_large"


def test_25_mb_go_there(runtime: Any) -> None:
    body = bytes(range(256)) * (25 << 12)
    answer = runtime.invoke_endpoint(EndpointName="demo", ContentType="application/octet-stream", Body=body)
    assert json.loads(answer["Body"].read())["length"] == 25 << 20


def test_many_at_once_are_all_answered_by_a_client_that_comes_again_when_the_queue_is_full(
    environment: None, container: Endpoint
) -> None:
    client = make_client()
    body = json.dumps({"predict_fn": {"sleep_s": 0.1}}).encode()

    def call(_: int) -> str:
        return invoke(client, "demo", body, "application/json", "application/json")[1]

    with ThreadPoolExecutor(24) as callers:
        attributes = list(callers.map(call, range(24)))
    assert {text.split(";")[1] for text in attributes} == {"replica=0", "replica=1"}
    assert any(event["status"] == 503 for event in container.events("request"))


def test_an_answer_is_streamed_part_by_part(runtime: Any) -> None:
    """The HTTP front end answers a form of several requests with a form of as many answers, each as it comes."""
    part = '--x\r\nContent-Disposition: form-data; name="{0}"\r\nContent-Type: application/json\r\n\r\n{{}}\r\n'
    answer = runtime.invoke_endpoint_with_response_stream(
        EndpointName="demo",
        ContentType="multipart/mixed; boundary=x",
        Accept="application/json",
        Body=(part.format(1) + part.format(2) + "--x--\r\n").encode(),
    )
    assert answer["ContentType"].startswith("multipart/mixed")
    content = b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"])
    assert content.count(b"Status: 200") == 2


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def location_of(path: str) -> Path:
    return Path(urlsplit(path).path)


def test_asynchronous_from_s3_to_a_folder(runtime: Any, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_url)
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="requests")
    s3.put_object(Bucket="requests", Key="today/a b.json", Body=b"{}")
    s3.put_object(Bucket="requests", Key="today/bad.json", Body=json.dumps({"predict_fn": {"raise": 1}}).encode())

    def submit(key: str) -> Any:
        location = f"s3://requests/today/{key}"
        return runtime.invoke_endpoint_async(EndpointName="demo", InputLocation=location, ContentType="application/json")

    good, bad, none = submit("a b.json"), submit("bad.json"), submit("none.json")
    for location in (good["OutputLocation"], bad["FailureLocation"], none["FailureLocation"]):
        wait_until(location_of(location).exists, 20)
    assert "predict_fn" in json.loads(location_of(good["OutputLocation"]).read_bytes())
    assert json.loads(location_of(bad["FailureLocation"]).read_bytes())["OriginalStatusCode"] == 500
    assert "NoSuchKey" in json.loads(location_of(none["FailureLocation"]).read_bytes())["OriginalMessage"]
