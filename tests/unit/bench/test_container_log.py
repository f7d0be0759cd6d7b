from __future__ import annotations

import json

import pytest

from bench.container_log import Span, mean_hops_ms, served_requests


def line(**fields: object) -> str:
    event = {"time": "2026-01-02T03:04:05.678+00:00", "source": "engine", "event": "request", "status": 200, **fields}
    return json.dumps(event) + "\n"


def test_requests_are_read_from_between_everything_else() -> None:
    lines = [
        "Warning: something of Java\n",
        line(event="ready", port=8080),
        line(request_id="r1", replica="2", total_ms=41.5, queue_ms=0.5, preprocess_ms=9.0, stage_1_ms=8.0),
        '{"time": "cut off\n',
        "[1, 2]\n",
    ]
    (request,) = served_requests(lines)
    assert request.request_id == "r1"
    assert request.replica == "2"
    assert request.total_ms == 41.5
    assert request.hops_ms == {"queue_ms": 0.5, "preprocess_ms": 9.0, "stage_1_ms": 8.0}
    assert request.spans == ()
    assert request.time == pytest.approx(1767323045.678)


def test_spans_are_read_where_they_were_traced() -> None:
    (request,) = served_requests([line(request_id="r1", spans=[["stage_1_ms", 10.0, 10.5, 4]])])
    assert request.spans == (Span("stage_1_ms", 10.0, 10.5, 4),)


def test_means_are_of_answered_requests_in_the_order_of_the_hops() -> None:
    lines = [
        line(postprocess_ms=4.0, own_ms=1.0, queue_ms=2.0),
        line(postprocess_ms=8.0, own_ms=1.0, queue_ms=4.0),
        line(status=503, queue_ms=1000.0),
    ]
    assert list(mean_hops_ms(served_requests(lines)).items()) == [("queue_ms", 3.0), ("postprocess_ms", 6.0), ("own_ms", 1.0)]


def test_no_requests_have_no_means() -> None:
    assert mean_hops_ms([]) == {}
