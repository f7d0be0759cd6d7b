from __future__ import annotations

import io
from pathlib import Path

import pytest
from botocore.response import StreamingBody
from rich.console import Console

from deploy_error import Denied, SmokeFailed
from deploy_progress import DeployProgress
from deploy_settings import SmokeSettings
from smoke import CLIENT_CONFIG, SmokeResult, content_type_of, smoke, smoke_async
from unit.deploy.deployments import StubbedAccount

PNG = b"\x89PNG\r\n\x1a\n..."
PROGRESS = DeployProgress(Console(file=io.StringIO()))


@pytest.fixture
def settings(tmp_path: Path) -> SmokeSettings:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"jpeg")
    return SmokeSettings((photo,), "", "image/png", None)


class Endpoint:
    """Answers of an endpoint, in order."""

    def __init__(self) -> None:
        self.stubbed = StubbedAccount()
        self.runtime = self.stubbed.stub("sagemaker-runtime")
        logs = self.stubbed.stub("logs")
        logs.add_response("filter_log_events", {"events": []})

    def answers(self, replica: int | None, body: bytes = PNG) -> None:
        attributes = {} if replica is None else {"CustomAttributes": f"request_id=a;replica={replica};queue_ms=1  "}
        stream = StreamingBody(io.BytesIO(body), len(body))
        expected = {"EndpointName": "demo", "Body": b"jpeg", "ContentType": "image/jpeg", "Accept": "image/png"}
        self.runtime.add_response("invoke_endpoint", {"Body": stream, "ContentType": "image/png", **attributes}, expected)

    def run(self, settings: SmokeSettings, replicas: int | None = 2, instances: int = 1) -> SmokeResult:
        return smoke(self.stubbed.account, PROGRESS, "demo", settings, replicas, instances)


def test_no_request_is_sent_twice_and_none_given_up_before_sagemaker_does() -> None:
    assert CLIENT_CONFIG.retries["total_max_attempts"] == 1
    assert CLIENT_CONFIG.read_timeout > 60


def test_until_every_replica_has_answered(settings: SmokeSettings) -> None:
    endpoint = Endpoint()
    for replica in (0, 0, 1):
        endpoint.answers(replica)
    assert endpoint.run(settings) == SmokeResult(3, frozenset({0, 1}))


def test_several_instances_get_their_share(settings: SmokeSettings) -> None:
    endpoint = Endpoint()
    for replica in (0, 1, 0, 1, 0, 1):
        endpoint.answers(replica)
    assert endpoint.run(settings, replicas=2, instances=3).requests == 6


def test_one_answer_is_enough_where_the_number_of_replicas_is_not_known(settings: SmokeSettings) -> None:
    endpoint = Endpoint()
    endpoint.answers(0)
    assert endpoint.run(settings, replicas=None).requests == 1


def test_answers_that_are_none(settings: SmokeSettings) -> None:
    for body, message in (
        (b"", "photo.jpg: the answer is empty"),
        (b"text", r"photo.jpg: the answer is no PNG \(image/png, 4 bytes\)"),
    ):
        endpoint = Endpoint()
        endpoint.answers(0, body)
        with pytest.raises(SmokeFailed, match=message):
            endpoint.run(settings)


def test_an_image_that_does_not_say_who_answered(settings: SmokeSettings) -> None:
    endpoint = Endpoint()
    for _ in range(16):
        endpoint.answers(None)
    with pytest.raises(SmokeFailed, match="no answer says which replica gave it"):
        endpoint.run(settings)


def test_who_may_not_invoke_is_denied(settings: SmokeSettings) -> None:
    endpoint = Endpoint()
    endpoint.runtime.add_client_error("invoke_endpoint", "AccessDeniedException", "not authorized")
    with pytest.raises(Denied):
        endpoint.run(settings)


def test_content_types() -> None:
    assert [content_type_of(Path(name)) for name in ("a.jpg", "a.png", "a.webp", "a.json", "a")] == [
        "image/jpeg",
        "image/png",
        "image/webp",
        "application/json",
        "application/octet-stream",
    ]
    assert content_type_of(Path("a.jpg"), "text/csv") == "text/csv"


@pytest.mark.parametrize("outcome", ["answer", "failure"])
def test_asynchronously_by_way_of_s3(settings: SmokeSettings, outcome: str) -> None:
    stubbed = StubbedAccount()
    s3, runtime = stubbed.stub("s3"), stubbed.stub("sagemaker-runtime")
    put = {"Bucket": "bucket", "Key": "demo/requests/smoke.jpg", "Body": b"jpeg", "ContentType": "image/jpeg"}
    s3.add_response("put_object", {}, put)
    request = {
        "EndpointName": "demo",
        "InputLocation": "s3://bucket/demo/requests/smoke.jpg",
        "ContentType": "image/jpeg",
        "Accept": "image/png",
    }
    places = {"OutputLocation": "s3://bucket/answers/1", "FailureLocation": "s3://bucket/failures/1"}
    runtime.add_response("invoke_endpoint_async", places, request)
    s3.add_client_error("head_object", "404", "Not Found", 404, expected_params={"Bucket": "bucket", "Key": "answers/1"})
    if outcome == "failure":
        s3.add_response("head_object", {}, {"Bucket": "bucket", "Key": "failures/1"})
        s3.add_response("delete_object", {}, {"Bucket": "bucket", "Key": "demo/requests/smoke.jpg"})
        with pytest.raises(SmokeFailed, match="see s3://bucket/failures/1"):
            smoke_async(stubbed.account, PROGRESS, "demo", settings, "s3://bucket/demo/requests/")
        return
    s3.add_client_error("head_object", "404", "Not Found", 404)
    s3.add_response("head_object", {}, {"Bucket": "bucket", "Key": "answers/1"})
    s3.add_response("delete_object", {}, {"Bucket": "bucket", "Key": "demo/requests/smoke.jpg"})
    assert smoke_async(stubbed.account, PROGRESS, "demo", settings, "s3://bucket/demo/requests/").requests == 1
    assert stubbed.slept == [2.0]
    s3.assert_no_pending_responses()
