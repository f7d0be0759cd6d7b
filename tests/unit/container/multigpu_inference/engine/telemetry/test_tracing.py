from __future__ import annotations

import http.server
import json
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from multigpu_inference.engine.telemetry import tracing
from multigpu_inference.engine.telemetry.finished_request import FinishedRequest
from multigpu_inference.engine.telemetry.trace_id import INFERENCE_ID
from multigpu_inference.engine.telemetry.tracing import Tracing, start_tracing
from support import free_port, wait_until
from unit.container.multigpu_inference.engine.telemetry.made import TWO_STAGES, finished

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Collector(http.server.ThreadingHTTPServer):
    """Takes spans over HTTP, as an OpenTelemetry collector does."""

    daemon_threads = True

    def __init__(self) -> None:
        self.received: list[ExportTraceServiceRequest] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def spans(self) -> list[Span]:
        return [
            s for request in self.received for of in request.resource_spans for scope in of.scope_spans for s in scope.spans
        ]

    @property
    def services(self) -> set[str]:
        resources = [of.resource for request in self.received for of in request.resource_spans]
        return {a.value.string_value for resource in resources for a in resource.attributes if a.key == "service.name"}


class Handler(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            self.server.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield server
        server.shutdown()
        serving.join()


def exported(collector: Collector, *requests: FinishedRequest, environ: dict[str, str] | None = None) -> list[Span]:
    """What the collector has when everything has ended."""
    started = start_tracing(environ or {})
    assert started is not None
    for request in requests:
        started.hand(request)
    end(started)
    return collector.spans


def end(started: Tracing) -> None:
    started.stop()
    wait_until(lambda: not started.running, 10)


def attributes(span: Span) -> dict[str, str | int]:
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


def root_of(spans: list[Span]) -> Span:
    (root,) = [span for span in spans if span.name == "invocation"]
    return root


def test_a_request_is_a_span_with_its_hops_under_it(collector: Collector) -> None:
    spans = exported(collector, finished())
    root = root_of(spans)
    hops = [span for span in spans if span is not root]
    assert [span.name for span in hops] == ["preprocess", "copy", "stage_1", "stage_2", "postprocess"]
    assert {span.parent_span_id for span in hops} == {root.span_id}
    assert {span.trace_id for span in spans} == {root.trace_id}
    assert root.kind == Span.SPAN_KIND_SERVER
    assert collector.services == {"multigpu-inference"}


def test_times_are_those_that_were_measured(collector: Collector) -> None:
    now = time.monotonic()
    hops = tuple((name, began + now - 101.0, ended + now - 101.0, n) for name, began, ended, n in TWO_STAGES)
    spans = exported(collector, finished(hops, arrived=now - 1.0, ended=now))
    root = root_of(spans)
    assert root.end_time_unix_nano - root.start_time_unix_nano == pytest.approx(1e9, abs=1e3)
    assert root.end_time_unix_nano == pytest.approx(time.time_ns(), abs=30e9)
    (stage,) = [span for span in spans if span.name == "stage_2"]
    assert stage.start_time_unix_nano - root.start_time_unix_nano == pytest.approx(0.4e9, abs=1e3)
    assert stage.end_time_unix_nano - stage.start_time_unix_nano == pytest.approx(0.2e9, abs=1e3)


def test_a_span_says_what_came_of_the_request(collector: Collector) -> None:
    headers = {INFERENCE_ID: "order 7"}
    request = finished(status=504, error="deadline_exceeded", replica="2", headers=headers, bytes_in=5, bytes_out=7)
    root = root_of(exported(collector, request))
    assert attributes(root) == {
        "http.response.status_code": 504,
        "http.request.body.size": 5,
        "http.response.body.size": 7,
        "multigpu.request_id": "r-1",
        "multigpu.replica": "2",
        "error.type": "deadline_exceeded",
        "aws.sagemaker.inference_id": "order 7",
    }
    assert (root.status.code, root.status.message) == (Status.STATUS_CODE_ERROR, "deadline_exceeded")


def test_the_clients_mistake_is_no_error_of_the_server(collector: Collector) -> None:
    assert root_of(exported(collector, finished(status=415, error="unsupported_media_type"))).status.code == 0


def test_a_hop_says_how_many_items_shared_it(collector: Collector) -> None:
    spans = exported(collector, finished())
    assert [attributes(span) for span in spans if span.name == "stage_1"] == [{"multigpu.batch_size": 4}]


def test_the_inference_id_is_the_trace(collector: Collector) -> None:
    spans = exported(collector, finished(headers={INFERENCE_ID: TRACE}))
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert root_of(spans).parent_span_id == b""


def test_the_clients_trace_goes_before_the_inference_id(collector: Collector) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", INFERENCE_ID: "f" * 32}
    spans = exported(collector, finished(headers=headers))
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert root_of(spans).parent_span_id.hex() == PARENT


@pytest.mark.parametrize("traceparent", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"])
def test_a_trace_that_is_none_does_not_count(collector: Collector, traceparent: str) -> None:
    spans = exported(collector, finished(headers={"traceparent": traceparent, INFERENCE_ID: "f" * 32}))
    assert {span.trace_id.hex() for span in spans} == {"f" * 32}


def test_a_client_that_does_not_want_its_trace_kept_is_obeyed(collector: Collector) -> None:
    unwanted = finished(headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    wanted = finished(headers={INFERENCE_ID: "e" * 32})
    assert {span.trace_id.hex() for span in exported(collector, unwanted, wanted)} == {"e" * 32}


def test_without_an_id_every_request_is_a_trace_of_its_own(collector: Collector) -> None:
    spans = exported(collector, finished(headers={INFERENCE_ID: TRACE}), finished(), finished())
    assert len({span.trace_id for span in spans}) == 3


def test_the_operators_name_of_the_service_is_kept(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mattes")
    exported(collector, finished(), environ={"OTEL_SERVICE_NAME": "mattes"})
    assert collector.services == {"mattes"}


def test_a_request_that_cannot_be_traced_costs_only_its_spans(collector: Collector, capfd: pytest.CaptureFixture[str]) -> None:
    broken = finished((("preprocess_ms", float("nan"), 1.0, 1),), headers={INFERENCE_ID: "d" * 32})
    spans = exported(collector, broken, finished(headers={INFERENCE_ID: TRACE}))
    assert len([span for span in spans if span.trace_id.hex() == TRACE]) == 6
    assert json.loads(capfd.readouterr().out.splitlines()[0])["event"] == "request_not_traced"


def test_what_is_handed_over_is_bounded(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_MOST_WAITING", 3)
    monkeypatch.setattr(tracing, "_LOOK_EVERY_S", 60.0)
    started = start_tracing({})
    assert started is not None
    for _ in range(10):
        started.hand(finished(()))
    assert started.dropped == 7
    end(started)
    assert len(collector.spans) == 3


def test_a_collector_that_is_away_is_one_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    started = start_tracing({})
    assert started is not None
    for _ in range(5):
        started.hand(finished())
    end(started)
    said = capfd.readouterr()
    (line,) = said.out.splitlines()
    assert json.loads(line)["event"] == "tracing_warned"
    assert said.err == ""


def test_without_the_packages_there_is_one_line_and_no_tracing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert start_tracing({}) is None
    (line,) = capfd.readouterr().out.splitlines()
    assert json.loads(line)["event"] == "no_tracing"


def test_a_variable_that_the_sdk_does_not_take_is_one_line_and_no_tracing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")  # smaller than what it exports at a time
    assert start_tracing({}) is None
    (line,) = capfd.readouterr().out.splitlines()
    assert json.loads(line)["event"] == "no_tracing"
