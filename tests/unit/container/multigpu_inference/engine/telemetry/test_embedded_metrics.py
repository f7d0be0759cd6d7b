from __future__ import annotations

import json
import os
import random
import sys
from typing import Any

import pytest

from multigpu_inference.engine.telemetry.cloudwatch_metrics import METRICS
from multigpu_inference.engine.telemetry.embedded_metrics import EmbeddedMetrics, Totals, write_line
from unit.container.multigpu_inference.engine.telemetry.made import snapshot

NOW = 1_790_000_000.25


def minute(endpoint_name: str = "mattes", before: Totals | None = None) -> EmbeddedMetrics:
    return EmbeddedMetrics(endpoint_name, "host-1", before or Totals())


def line(metrics: EmbeddedMetrics, after: Totals | None = None) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(metrics.line(NOW, after or Totals()))
    check(document)
    return document


def check(document: dict[str, Any]) -> None:
    """The rules of the format's specification."""
    metadata = document["_aws"]
    assert type(metadata["Timestamp"]) is int
    assert metadata["Timestamp"] == int(NOW * 1000)
    (directive,) = metadata["CloudWatchMetrics"]
    assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
    for names in directive["Dimensions"]:
        assert 0 < len(names) <= 30
        for name in names:
            assert isinstance(document[name], str)
            assert 0 < len(document[name]) <= 1024
    assert 0 < len(directive["Metrics"]) <= 100
    units = {metric.name: metric.unit for metric in METRICS}
    for metric in directive["Metrics"]:
        assert metric == {"Name": metric["Name"], "Unit": units[metric["Name"]]}
        values = document[metric["Name"]]
        values = values if isinstance(values, list) else [values]
        assert 0 < len(values) <= 100
        assert all(type(value) in (int, float) and abs(value) < 2**360 for value in values)


def test_a_line_keeps_to_the_format_and_has_all_metrics() -> None:
    metrics = minute()
    metrics.sample(1.0, snapshot())
    metrics.request_seconds.add(0.1)
    document = line(metrics, Totals(busy_s=(1.0,), elapsed_s=(2.0,)))
    assert {metric["Name"] for metric in document["_aws"]["CloudWatchMetrics"][0]["Metrics"]} == {m.name for m in METRICS}
    assert document["EndpointName"] == "mattes"
    assert document["Host"] == "host-1"


def test_a_minute_without_requests_has_no_request_seconds() -> None:
    metrics = minute()
    metrics.sample(1.0, snapshot())
    assert "RequestSeconds" not in line(metrics)


def test_a_line_tells_what_has_come_since_the_last_one() -> None:
    metrics = minute(before=Totals(10, 2, 1, 3, (5.0, 6.0), (10.0, 10.0)))
    document = line(metrics, Totals(17, 4, 1, 5, (8.0, 6.0), (20.0, 20.0)))
    assert [document[name] for name in ("Requests", "Errors5xx", "Refused", "Restarts")] == [7, 2, 0, 2]
    assert document["DeviceBusyPercent"] == [30.0, 0.0]


def test_the_next_minute_begins_empty() -> None:
    metrics = minute()
    metrics.sample(1.0, snapshot(in_flight=7))
    metrics.request_seconds.add(0.1)
    metrics.begin(Totals(requests=5))
    metrics.sample(2.0, snapshot(in_flight=3))
    document = line(metrics, Totals(requests=6))
    assert (document["InFlight"], document["Requests"], "RequestSeconds" in document) == ([3], 1, False)


def test_each_second_is_told() -> None:
    metrics = minute()
    metrics.sample(10.0, snapshot(waiting=0, in_flight=4, healthy_replicas=2))
    metrics.sample(11.0, snapshot(waiting=2, in_flight=9, healthy_replicas=1, oldest_waiting_since=8.5))
    document = line(metrics)
    assert document["QueueAgeSeconds"] == [0.0, 2.5]
    assert document["QueueDepth"] == [0, 2]
    assert document["InFlight"] == [4, 9]
    assert document["HealthyReplicas"] == [2, 1]


def test_request_seconds_are_spread_as_the_requests_were() -> None:
    metrics = minute()
    for i in range(1000):
        metrics.request_seconds.add(0.1 if i < 900 else 2.0)
    told = line(metrics)["RequestSeconds"]
    assert len(told) == 100
    assert sum(value > 1.0 for value in told) == 10
    assert min(told) == pytest.approx(0.1, rel=0.1)
    assert max(told) == pytest.approx(2.0, rel=0.1)


def test_an_endpoint_without_a_name_is_unknown() -> None:
    assert line(minute(""))["EndpointName"] == "unknown"


def test_devices_of_which_nothing_is_known_are_left_out() -> None:
    metrics = minute(before=Totals(busy_s=(1.0, 1.0), elapsed_s=(2.0, 2.0)))
    assert line(metrics, Totals(busy_s=(1.0, 1.0), elapsed_s=(2.0, 2.0))).get("DeviceBusyPercent") is None


def test_the_longest_line_is_one_that_a_pipe_takes_whole() -> None:
    metrics = EmbeddedMetrics("e" * 63, "h" * 64, Totals())
    chance = random.Random(1)
    for _ in range(300):
        metrics.sample(
            9999.999,
            snapshot(waiting=99_999, in_flight=99_999, healthy_replicas=256, oldest_waiting_since=chance.uniform(0, 9000)),
        )
        metrics.request_seconds.add(chance.uniform(0.001, 60.0))
    devices = tuple(chance.uniform(0, 99) for _ in range(256))
    data = metrics.line(NOW, Totals(10**9, 10**9, 10**9, 10**9, devices, (100.0,) * 256))
    check(json.loads(data))
    assert data.endswith(b"}\n")
    assert len(data) <= 4096


def test_a_line_is_written_to_standard_output_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    sys.stdout.write("before\n")
    write_line(b'{"a":1}\n')
    assert capfd.readouterr().out == 'before\n{"a":1}\n'


def test_a_log_that_nobody_reads_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    kept = os.dup(1)
    try:
        os.close(1)
        write_line(b"{}\n")
    finally:
        os.dup2(kept, 1)
        os.close(kept)
