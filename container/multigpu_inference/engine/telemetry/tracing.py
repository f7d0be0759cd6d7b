"""Spans of each request for an OpenTelemetry collector, made beside the engine's loop.

    engine's loop: hand(request) ──► bounded queue ──► thread: spans ──► the SDK's queue and thread ──► OTLP over HTTP

Where spans go and how they are sampled is said by the standard `OTEL_` variables, which the SDK reads itself. The packages
are an extra (`tracing`). A collector that is away costs spans, never a request.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from multigpu_inference import log
from multigpu_inference.engine.telemetry.finished_request import FinishedRequest

if TYPE_CHECKING:
    from multigpu_inference.engine.telemetry.span_maker import SpanMaker

_MOST_WAITING = 4096
# Spans are made in small portions with a rest after each: the engine's loop needs the interpreter's lock more.
_LOOK_EVERY_S = 0.2
_REST_S = 1e-4
_LOG_EVERY_S = 60.0


class Tracing:
    """Hands answered requests to a thread that makes spans of them."""

    def __init__(self, maker: SpanMaker) -> None:
        """Start the thread."""
        self.dropped = 0
        self._maker = maker
        self._waiting: deque[FinishedRequest] = deque()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracing", daemon=True)
        self._thread.start()

    def hand(self, request: FinishedRequest) -> None:
        """Take an answered request; where too many wait already it is left out."""
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(request)
        else:
            self.dropped += 1

    def stop(self) -> None:
        """Let what waits be exported and the threads end. Does not wait: `running` says whether that is done."""
        self._stopped.set()

    @property
    def running(self) -> bool:
        """Whether there may still be something to export."""
        return self._thread.is_alive()

    def _work(self) -> None:
        stopped = False
        while not stopped:
            stopped = self._stopped.wait(_LOOK_EVERY_S)
            while self._waiting:
                try:
                    self._maker.make(self._waiting.popleft())
                except Exception as error:  # a fault of ours: this request has no spans, the next one has
                    log.exception("request_not_traced", error)
                time.sleep(_REST_S)
        if self.dropped:
            log.event("requests_not_traced", requests=self.dropped, reason="more came than spans could be made of")
        self._maker.close()


def start_tracing(environ: Mapping[str, str] = os.environ) -> Tracing | None:
    """Begin to trace; None, and a line in the log, where the packages are not there or cannot be set up."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        from multigpu_inference.engine.telemetry.span_maker import SpanMaker
    except ImportError as error:
        log.event("no_tracing", reason=str(error), message="an OTLP endpoint is set, but the extra `tracing` is not installed")
        return None
    try:
        _log_warnings()
        return Tracing(SpanMaker(OTLPSpanExporter(), environ))
    except Exception as error:  # such as a variable that the SDK does not understand
        log.exception("no_tracing", error)
        return None


def _log_warnings() -> None:
    """What the SDK logs by itself, such as each export that fails, becomes one line a minute."""
    logging.getLogger("opentelemetry").handlers = [_OncePerMinute(logging.WARNING)]


class _OncePerMinute(logging.Handler):
    """Writes the first record of each minute as an event, and how many have been left out since."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._silent_until = float("-inf")
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now < self._silent_until:
            self._left_out += 1
            return
        self._silent_until = now + _LOG_EVERY_S
        left_out, self._left_out = self._left_out, 0
        log.event("tracing_warned", reason=record.getMessage(), left_out=left_out or None)
