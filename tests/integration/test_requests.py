"""What a client sees, through either front end."""

from __future__ import annotations

import concurrent.futures
import json

import pytest

from integration.endpoint import Endpoint
from multigpu_inference.config import HTTP


def seen(endpoint: Endpoint, commands: dict[str, object]) -> dict[str, dict[str, object]]:
    answer = endpoint.invoke(commands)
    assert answer.status_code == 200, answer.text
    content: dict[str, dict[str, object]] = answer.json()
    return content


def attributes(headers: object) -> dict[str, str]:
    value = headers["X-Amzn-SageMaker-Custom-Attributes"]  # type: ignore[index]
    return dict(pair.split("=", 1) for pair in value.strip().split(";"))


def test_ping_answers_200(endpoint: Endpoint) -> None:
    assert endpoint.session.get(f"{endpoint.url}/ping", timeout=2).status_code == 200


def test_replicas_answer_in_turn(endpoint: Endpoint) -> None:
    replicas = [seen(endpoint, {})["predict_fn"]["replica"] for _ in range(8)]
    assert replicas in ([0, 1] * 4, [1, 0] * 4)


def test_requests_that_come_together_use_both_replicas(endpoint: Endpoint) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        answers = threads.map(lambda _: seen(endpoint, {"predict_fn": {"sleep_s": 0.2}}), range(4))
    assert sorted(str(answer["predict_fn"]["replica"]) for answer in answers) == ["0", "0", "1", "1"]


def test_each_function_runs_in_its_own_kind_of_process(endpoint: Endpoint) -> None:
    answer = seen(endpoint, {})
    pool, replicas = endpoint.worker_pids("pool-").values(), endpoint.worker_pids("replica-").values()
    assert answer["input_fn"]["pid"] in pool
    assert answer["predict_fn"]["pid"] in replicas
    assert answer["output_fn"]["pid"] in pool


def test_every_process_sees_no_gpu_and_its_share_of_threads_on_a_cpu_machine(endpoint: Endpoint) -> None:
    answer = seen(endpoint, {})
    assert [answer[function]["cuda_visible_devices"] for function in ("input_fn", "predict_fn")] == ["", ""]
    assert answer["input_fn"]["threads"] == "1"
    assert answer["predict_fn"]["threads"] == str(endpoint.events("plan")[0]["threads_per_stage"])


def test_the_working_folder_is_the_model_folder(endpoint: Endpoint) -> None:
    assert seen(endpoint, {})["predict_fn"]["working_folder"] == str(endpoint.model_dir)


def test_the_context_has_the_requests_headers_whatever_their_case(endpoint: Endpoint) -> None:
    answer = endpoint.invoke({}, x_amzn_SAGEMAKER_custom_attributes="a=1").json()
    assert [answer[f]["custom"] for f in ("input_fn", "predict_fn", "output_fn")] == ["a=1"] * 3


def test_custom_attributes_state_the_replica_and_every_hop(endpoint: Endpoint) -> None:
    answer = endpoint.invoke({"predict_fn": {"sleep_s": 0.1}})
    found = attributes(answer.headers)
    assert list(found) == ["request_id", "replica", "queue_ms", "preprocess_ms", "copy_ms", "predict_ms", "postprocess_ms"]
    assert found["replica"] == str(answer.json()["predict_fn"]["replica"])
    assert found["request_id"] == answer.json()["predict_fn"]["request_id"]
    assert 100 <= float(found["predict_ms"]) < 1000


def test_one_log_line_for_each_request(endpoint: Endpoint) -> None:
    answer = endpoint.invoke({}, X_Amzn_SageMaker_Inference_Id="mine-1")
    request_id = attributes(answer.headers)["request_id"]
    (line,) = [event for event in endpoint.events("request") if event["request_id"] == request_id]
    assert (line["status"], line["inference_id"], line["bytes_out"]) == (200, "mine-1", len(answer.content))
    assert line["total_ms"] > 0


@pytest.mark.parametrize("size", [0, 1, 70_000, 5_000_000])
def test_bodies_arrive_byte_for_byte(endpoint: Endpoint, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    answer = endpoint.invoke(body, "application/octet-stream")
    assert answer.json()["length"] == size
    assert answer.json()["sum"] == sum(body[:100_000])


def test_answers_of_five_megabytes_arrive_whole(endpoint: Endpoint) -> None:
    answer = endpoint.invoke({"output_fn": {"size": 5_000_000}})
    assert (answer.status_code, len(answer.content)) == (200, 5_000_000)
    assert answer.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("body", "content_type", "accept", "status", "error"),
    [
        ("{", "application/json", "*/*", 400, "bad_request"),
        ("{}", "application/json", "video/mp4", 406, "not_acceptable"),
        ("a,b", "text/csv", "*/*", 415, "unsupported_media_type"),
        ('{"predict_fn": {"status": 413}}', "application/json", "*/*", 413, "payload_too_large"),
        ('{"input_fn": {"status": 422}}', "application/json", "*/*", 422, "unprocessable"),
        ('{"output_fn": {"status": 503}}', "application/json", "*/*", 503, "unavailable"),
        ('{"input_fn": {"raise": 1}}', "application/json", "*/*", 500, "function_failed"),
        ('{"predict_fn": {"raise": 1}}', "application/json", "*/*", 500, "function_failed"),
        ('{"output_fn": {"raise": 1}}', "application/json", "*/*", 500, "function_failed"),
        ('{"predict_fn": {"exit": 3}}', "application/json", "*/*", 500, "function_failed"),
        ('{"predict_fn": {"sleep_s": 4.5}}', "application/json", "*/*", 504, "deadline_exceeded"),
        # What curl sends without a type; multi-model-server takes all that stands before the first "=" for a part's name.
        ("A" * 100_000 + "==", "application/x-www-form-urlencoded", "*/*", 415, "unsupported_media_type"),
    ],
)
def test_every_failure_is_one_line_of_json_with_its_status(
    endpoint: Endpoint, body: str, content_type: str, accept: str, status: int, error: str
) -> None:
    answer = endpoint.invoke(body, content_type, Accept=accept)
    assert answer.status_code == status, answer.text
    content = answer.json()
    assert content["error"] == error
    assert content["request_id"] == attributes(answer.headers)["request_id"]
    assert answer.headers["Content-Type"] == "application/json"
    assert len(answer.content.strip().splitlines()) == 1
    assert "Traceback" not in answer.text
    assert "secret" not in answer.text
    assert endpoint.invoke({}).status_code == 200


def test_the_log_has_the_reason_that_the_client_does_not_get(endpoint: Endpoint) -> None:
    answer = endpoint.invoke({"predict_fn": {"raise": 1}})
    request_id = answer.json()["request_id"]
    (line,) = [event for event in endpoint.events("request") if event["request_id"] == request_id]
    assert "ValueError: a path such as /opt/ml/secret" in line["reason"]
    (trace,) = [event for event in endpoint.events("function_failed") if event.get("request_id") == request_id]
    assert "Traceback" in trace["trace"]


def test_a_body_over_the_payload_limit_is_refused(endpoint: Endpoint) -> None:
    assert endpoint.invoke(b"x" * (26 << 20), "application/octet-stream").status_code == 413
    assert endpoint.invoke({}).status_code == 200


def test_an_answer_over_the_payload_limit_is_a_clear_error(endpoint: Endpoint) -> None:
    answer = endpoint.invoke({"output_fn": {"size": 26 << 20}})
    assert (answer.status_code, answer.json()["error"]) == (500, "response_too_large")
    assert endpoint.invoke({}).status_code == 200


def test_the_replica_workers_import_no_front_end_code(endpoint: Endpoint) -> None:
    modules = json.loads(endpoint.invoke({"modules": True}).content)["modules"]
    foreign = ("mms", "sagemaker_inference", "multigpu_inference.frontend", "multigpu_inference.supervisor")
    assert [name for name in modules if name.startswith(foreign)] == []


def test_engine_and_front_end_hold_no_torch(endpoint: Endpoint, kind: str) -> None:
    front_end = endpoint.processes("frontend.http.server" if kind == HTTP else "model_service_worker")
    assert len(front_end) >= (1 if kind == HTTP else 2)
    processes = [*endpoint.processes("multigpu_inference.engine.server"), *front_end]
    for process in processes:
        mapped = {mapping.path for mapping in process.memory_maps()}
        assert not [path for path in mapped if "torch" in path]
