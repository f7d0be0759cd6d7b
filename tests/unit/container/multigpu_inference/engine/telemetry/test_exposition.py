from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from multigpu_inference.engine.telemetry.exposition import CONTENT_TYPE, Observed, exposition
from multigpu_inference.engine.telemetry.gpus import GpuReading
from multigpu_inference.engine.telemetry.process_memory import ProcessMemory
from multigpu_inference.engine.telemetry.snapshot import Snapshot
from multigpu_inference.engine.telemetry.statistics import Statistics
from unit.container.multigpu_inference.engine.telemetry.made import finished, snapshot, worker

GPU = GpuReading("cuda:0", "GPU-1", 0.75, 5, 10, 41.0, None)


def text(counted: Statistics | None = None, now: Snapshot | None = None) -> str:
    counted = counted or Statistics()
    counted.finished(finished())
    counted.batch("0", "stage_1_ms", 0.25, 4)
    counted.refused(503, "overloaded")
    counted.spared_before("deadline_exceeded", "output_fn")
    memory = {"engine": ProcessMemory(100, 40)}
    device_seconds = {"cuda:0": {"busy": 3.0, "no_traffic": 1.5}}
    return exposition(Observed(50.0, counted, now or snapshot(), device_seconds, (GPU,), memory)).decode()


def value(exposed: str, sample: str) -> float:
    """Of a sample as it stands in the text, such as `name{label="x"}`."""
    (found,) = [line.rsplit(" ", 1)[1] for line in exposed.splitlines() if line.rsplit(" ", 1)[0] == sample]
    return float(found)


def test_prometheus_can_read_it() -> None:
    families = {family.name: family for family in text_string_to_metric_families(text())}
    assert families["multigpu_requests"].type == "counter"
    assert families["multigpu_request_seconds"].type == "histogram"
    assert families["multigpu_queue_depth"].type == "gauge"


def test_names_and_help_keep_prometheus_rules() -> None:
    for family in text_string_to_metric_families(text()):
        assert re.fullmatch(r"multigpu_[a-z_0-9]+", family.name)
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|milliseconds|mb|percent)(_|$)", family.name)
        assert family.type == "counter" or not family.name.endswith("_total")


def test_no_sample_is_there_twice() -> None:
    samples = [line.rsplit(" ", 1)[0] for line in text().splitlines() if not line.startswith("#")]
    assert len(samples) == len(set(samples))


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ('multigpu_requests_total{error="",status="200"}', 1),
        ('multigpu_requests_total{error="overloaded",status="503"}', 1),
        ('multigpu_refused_total{by="front_end",reason="overloaded"}', 1),
        ('multigpu_spared_total{before="output_fn",reason="deadline_exceeded"}', 1),
        ("multigpu_request_seconds_count", 1),
        ("multigpu_request_seconds_sum", 1.0),
        ('multigpu_request_seconds_bucket{le="0.75"}', 0),
        ('multigpu_request_seconds_bucket{le="1"}', 1),
        ('multigpu_request_seconds_bucket{le="+Inf"}', 1),
        ('multigpu_hop_seconds_count{hop="stage_2"}', 1),
        ('multigpu_batch_size_sum{hop="stage_1"}', 4),
        ('multigpu_replica_requests_total{replica="0"}', 1),
        ('multigpu_replica_stage_seconds_total{hop="stage_1",replica="0"}', 0.25),
        ('multigpu_device_seconds_total{device="cuda:0",state="no_traffic"}', 1.5),
        ('multigpu_process_resident_bytes{worker="engine"}', 100),
        ('multigpu_process_shared_bytes{worker="engine"}', 40),
        ('multigpu_gpu_utilization_ratio{device="cuda:0",uuid="GPU-1"}', 0.75),
        ('multigpu_gpu_memory_used_bytes{device="cuda:0",uuid="GPU-1"}', 5),
        ('multigpu_gpu_temperature_celsius{device="cuda:0",uuid="GPU-1"}', 41),
        ("multigpu_healthy_replicas", 2),
        ("multigpu_max_in_flight", 22),
        ('multigpu_health{state="healthy"}', 1),
        ('multigpu_health{state="draining"}', 0),
    ],
)
def test_a_figure_is_there(sample: str, expected: float) -> None:
    assert value(text(), sample) == expected


def test_what_the_driver_does_not_tell_is_no_figure() -> None:
    assert "multigpu_gpu_power_watts" not in text()


def test_the_queue_is_as_old_as_its_first_request() -> None:
    exposed = text(now=snapshot(waiting=2, oldest_waiting_since=47.5, in_flight=24))
    assert value(exposed, "multigpu_queue_age_seconds") == 2.5
    assert value(exposed, "multigpu_queue_depth") == 2
    assert value(exposed, "multigpu_requests_in_flight") == 24


def test_workers_are_shown_by_name() -> None:
    busy = worker("replica-0", in_flight=3, oldest_task_s=49.0, restarts=1)
    exposed = text(now=snapshot(replicas=(busy, worker("replica-1", pid=None, restarts=4))))
    assert value(exposed, 'multigpu_worker_up{worker="replica-0"}') == 1
    assert value(exposed, 'multigpu_worker_up{worker="replica-1"}') == 0
    assert value(exposed, 'multigpu_worker_restarts_total{worker="replica-1"}') == 4
    assert value(exposed, 'multigpu_worker_in_flight{worker="replica-0"}') == 3
    assert value(exposed, 'multigpu_worker_oldest_task_seconds{worker="replica-0"}') == 1.0
    assert value(exposed, 'multigpu_worker_oldest_task_seconds{worker="pool-0"}') == 0.0


def test_a_codes_text_cannot_break_the_format() -> None:
    counted = Statistics()
    counted.refused(400, 'a"b\\c\nd')
    exposed = text(counted)
    (family,) = [f for f in text_string_to_metric_families(exposed) if f.name == "multigpu_requests"]
    assert 'a"b\\c\nd' in {sample.labels["error"] for sample in family.samples}


def test_it_is_prometheus_text() -> None:
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
    assert text().endswith("\n")
