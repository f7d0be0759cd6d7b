from __future__ import annotations

import json
from typing import Any

import pytest

from multigpu_inference.engine.telemetry.device_time import DeviceTime
from multigpu_inference.engine.telemetry.gpus import GpuReading
from multigpu_inference.engine.telemetry.idle_causes import Timeline
from multigpu_inference.engine.telemetry.snapshot import Snapshot
from multigpu_inference.engine.telemetry.statistics import Statistics
from multigpu_inference.engine.telemetry.summary import summary
from unit.container.multigpu_inference.engine.telemetry.made import finished, snapshot, worker

PLACEMENT = (("cuda:0", "cuda:1"), ("cuda:1", "cuda:0"))


def made(now: Snapshot | None = None, delay_ms: float = 0.0) -> dict[str, Any]:
    counted = Statistics()
    counted.finished(finished())
    counted.finished(finished(status=503, error="overloaded", replica=""))
    counted.batch("0", "stage_1_ms", 2.0, 4)
    counted.spared_before("client_gone", "admission")
    counted.spared_before("client_gone", "input_fn")
    busy, idle = DeviceTime(0.0), DeviceTime(0.0)
    busy.worked(0.0, 30.0, "0", "stage_1_ms", Timeline(0.0, 0.0, ()))
    busy.worked(35.0, 39.0, "0", "stage_1_ms", Timeline(30.0, 30.0, (("preprocess_ms", 30.0, 35.0, 1),)))
    for device in (busy, idle):
        device.settle(40.0)
    gpu = GpuReading("cuda:1", "GPU-1", 0.5, 1, 2, 40.0, 100.0)
    return summary(counted, now or snapshot(), PLACEMENT, {"cuda:0": busy, "cuda:1": idle}, (gpu,), delay_ms)


def test_json_can_write_it() -> None:
    assert json.loads(json.dumps(made())) == made()


def test_a_device_shows_where_its_time_went() -> None:
    device = made()["devices"]["cuda:0"]
    assert device["busy_percent"] == 85.0
    assert device["recent_s"]["decode"] == 5.0
    assert sum(device["total_s"].values()) == pytest.approx(40.0)
    assert device["advice"].startswith("cuda:0 was busy for 85 % of the time; for 12 %")


def test_what_the_driver_says_stands_beside_it() -> None:
    devices = made()["devices"]
    assert devices["cuda:1"]["gpu"]["temperature_celsius"] == 40.0
    assert "gpu" not in devices["cuda:0"]


def test_all_devices_together_have_an_advice() -> None:
    assert made()["advice"].startswith("the average device was busy for 42 % of the time; for 51 % no request")


def test_advice_knows_the_pool_and_the_delay() -> None:
    assert "MULTIGPU_PREPROCESS_WORKERS (now 1)" in made()["devices"]["cuda:0"]["advice"]
    without_pool = made(snapshot(pool=()))
    assert "function_placed" in without_pool["devices"]["cuda:0"]["advice"]


def test_a_device_of_which_nothing_is_known_is_not_busy() -> None:
    new = DeviceTime(0.0)
    only = summary(Statistics(), snapshot(replicas=(worker("replica-0"),)), (("cuda:0",),), {"cuda:0": new}, (), 0.0)
    assert only["devices"]["cuda:0"]["busy_percent"] == 0.0
    assert only["advice"] == "the average device: nothing to say yet."


def test_requests_hops_and_batches_are_told() -> None:
    told = made()
    assert told["requests"] | {"p50_s": 0, "p99_s": 0} == {
        "total": 2, "server_errors": 1, "refused": 1, "p50_s": 0, "p99_s": 0,
        "spared": {"client_gone": {"admission": 1, "input_fn": 1}},
    }  # fmt: skip
    assert 0.75 < told["requests"]["p99_s"] <= 1.0
    assert told["hops"]["stage_2"] == {"requests": 2, "mean_s": pytest.approx(0.2)}
    assert told["batches"] == {"stage_1": {"batches": 1, "mean_size": 4.0}}


def test_replicas_are_told_with_their_work() -> None:
    down = worker("replica-1", pid=None, restarts=3)
    replicas = made(snapshot(replicas=(worker("replica-0", pid=7, in_flight=2), down)))["replicas"]
    assert replicas["replica-0"] == {
        "devices": ["cuda:0", "cuda:1"],
        "pid": 7,
        "in_flight": 2,
        "restarts": 0,
        "taken_out": False,
        "requests": 1,
        "stage_s": {"stage_1": 2.0},
    }
    assert (replicas["replica-1"]["pid"], replicas["replica-1"]["restarts"], replicas["replica-1"]["stage_s"]) == (None, 3, {})
