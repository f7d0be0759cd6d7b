"""An answered request as OpenTelemetry spans: one for it, and under it one for each hop, with the times that were measured.

Runs on the thread of `tracing`, which alone imports it: the SDK is an extra.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from multigpu_inference.engine.telemetry.finished_request import FinishedRequest, hop_label
from multigpu_inference.engine.telemetry.trace_id import INFERENCE_ID, trace_id

_SERVICE = "multigpu-inference"


class SpanMaker:
    """Makes spans and hands them to the SDK's queue."""

    def __init__(self, exporter: SpanExporter, environ: Mapping[str, str]) -> None:
        """Start the SDK's thread.

        Args:
            exporter: Where spans go.
            environ: Where the service's name may stand.
        """
        named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        self._ids = _Ids()
        # At the interpreter's exit it would wait for a collector that is away; `tracing` stops it, within a deadline.
        self._provider = TracerProvider(
            resource=Resource.create({} if named else {"service.name": _SERVICE}),
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("multigpu_inference")
        self._parent = TraceContextTextMapPropagator()
        # One offset for all: hops of one request stand to each other as they were measured.
        self._epoch_ns = time.time_ns() - time.monotonic_ns()

    def make(self, request: FinishedRequest) -> None:
        """Make a request's spans. The client's own trace goes before the inference id, and says whether to keep them."""
        invocation = request.invocation
        self._ids.trace_id = trace_id(invocation.headers)
        attributes: dict[str, str | int] = {
            "http.response.status_code": request.status,
            "http.request.body.size": request.bytes_in,
            "http.response.body.size": request.bytes_out,
            "multigpu.request_id": invocation.request_id,
        }
        if request.replica:
            attributes["multigpu.replica"] = request.replica
        if request.error is not None:
            attributes["error.type"] = request.error
        if INFERENCE_ID in invocation.headers:
            attributes["aws.sagemaker.inference_id"] = invocation.headers[INFERENCE_ID]
        root = self._tracer.start_span(
            "invocation",
            self._parent.extract(invocation.headers),
            SpanKind.SERVER,
            attributes,
            start_time=self._ns(invocation.arrived),
        )
        if not root.is_recording():
            return
        under = set_span_in_context(root)
        for name, began, ended, items in request.spans:
            size = {"multigpu.batch_size": items}
            hop = self._tracer.start_span(hop_label(name), under, attributes=size, start_time=self._ns(began))
            hop.end(self._ns(ended))
        if request.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            root.set_status(Status(StatusCode.ERROR, request.error))
        root.end(self._ns(request.ended))

    def close(self) -> None:
        """Export what is left; waits for the collector as long as the SDK does."""
        self._provider.shutdown()

    def _ns(self, monotonic_s: float) -> int:
        """Nanoseconds of the epoch."""
        return self._epoch_ns + round(monotonic_s * 1e9)


class _Ids(RandomIdGenerator):
    """Random ids, but for a trace that has its own. Used by one thread, one request after another."""

    trace_id: int | None = None

    def generate_trace_id(self) -> int:
        """The number of a trace that no client has begun."""
        return super().generate_trace_id() if self.trace_id is None else self.trace_id
