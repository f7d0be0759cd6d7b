from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from multigpu_inference.config import Settings
from multigpu_inference.engine.telemetry import telemetry as module
from multigpu_inference.engine.telemetry.snapshot import Snapshot
from multigpu_inference.engine.telemetry.telemetry import Telemetry
from support import wait_until
from unit.container.multigpu_inference.engine.telemetry.made import finished, snapshot, worker
from unit.container.multigpu_inference.engine.telemetry.test_tracing import Collector

RING = (("cuda:0", "cuda:1"), ("cuda:1", "cuda:0"))
ON_CPU = (("cpu:0",), ("cpu:1",))


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


def made(
    clock: Callable[[], float] = time.monotonic,
    placement: tuple[tuple[str, ...], ...] = RING,
    now: Callable[[], Snapshot] = snapshot,
    **environ: str,
) -> Telemetry:
    return Telemetry(Settings.from_env(environ), placement, now, clock)


def states(telemetry: Telemetry, device: str) -> dict[str, float]:
    seconds: dict[str, float] = telemetry.summary()["devices"][device]["total_s"]
    return {state: value for state, value in seconds.items() if value}


def one_tick(telemetry: Telemetry, clock: Clock, now: float) -> None:
    clock.now = now
    with asyncio.Runner() as runner:
        runner.run(telemetry.tick())


def test_each_stage_keeps_its_own_device_busy(clock: Clock) -> None:
    telemetry = made(clock)
    telemetry.finished(finished(replica="0"))  # stage 1 from 100.3 to 100.4, stage 2 from 100.4 to 100.6
    telemetry.finished(finished(replica="1"))
    one_tick(telemetry, clock, 101.0)
    assert states(telemetry, "cuda:0")["busy"] == pytest.approx(0.3)
    assert states(telemetry, "cuda:1")["busy"] == pytest.approx(0.3)


def test_gaps_are_charged_by_the_requests_way(clock: Clock) -> None:
    telemetry = made(clock, (("cuda:0", "cuda:1"),), lambda: snapshot(replicas=(worker("replica-0"),)))
    telemetry.finished(finished(replica="0"))
    one_tick(telemetry, clock, 101.0)
    assert states(telemetry, "cuda:1") == pytest.approx(
        {"decode": 0.1 + 0.1 * 0.1 / 0.15, "encode": 0.1 * 0.05 / 0.15, "copy": 0.05, "batch_wait": 0.05, "other_stage": 0.1,
         "busy": 0.2, "no_traffic": 0.4},
        abs=1e-3,
    )  # fmt: skip


def test_a_prediction_is_work_of_the_replicas_first_device(clock: Clock) -> None:
    telemetry = made(clock, (("cuda:3",),), lambda: snapshot(replicas=(worker("replica-0"),)))
    telemetry.finished(finished((("predict_ms", 100.5, 100.75, 1),)))
    one_tick(telemetry, clock, 101.0)
    assert states(telemetry, "cuda:3")["busy"] == 0.25


def test_requests_of_one_batch_count_it_once(clock: Clock) -> None:
    telemetry = made(clock)
    for _ in range(4):
        telemetry.finished(finished())
    assert telemetry.summary()["batches"]["stage_1"] == {"batches": 1, "mean_size": 4.0}
    one_tick(telemetry, clock, 101.0)
    assert states(telemetry, "cuda:0")["busy"] == pytest.approx(0.1)


def test_what_a_request_in_flight_did_is_waited_for(clock: Clock) -> None:
    moments = [snapshot(in_flight=1, oldest_request_since=100.0)]
    telemetry = made(clock, now=lambda: moments[-1])
    one_tick(telemetry, clock, 105.0)
    assert states(telemetry, "cuda:0") == {}
    telemetry.finished(finished())
    moments.append(snapshot())
    one_tick(telemetry, clock, 106.0)
    assert states(telemetry, "cuda:0")["busy"] == pytest.approx(0.1)


def test_a_replica_that_is_being_replaced_takes_its_devices_time(clock: Clock) -> None:
    moments = [snapshot(replicas=(worker("replica-0", pid=None),))]
    telemetry = made(clock, (("cuda:0", "cuda:1"),), lambda: moments[-1])
    one_tick(telemetry, clock, 101.0)
    moments.append(snapshot(replicas=(worker("replica-0"),)))
    one_tick(telemetry, clock, 104.0)
    one_tick(telemetry, clock, 105.0)
    assert states(telemetry, "cuda:1") == pytest.approx({"no_traffic": 2.0, "replacing": 3.0})


@pytest.mark.parametrize(
    "span",
    [("stage_1_ms", 200.0, 300.0, 1), ("stage_1_ms", 101.0, 100.0, 1), ("stage_1_ms", float("nan"), 100.5, 1)],
    ids=["after its answer", "backwards", "no number"],
)
def test_work_that_cannot_have_been_is_left_out(clock: Clock, span: tuple[str, float, float, int]) -> None:
    telemetry = made(clock)
    telemetry.finished(finished((span, ("stage_2_ms", 100.25, 100.5, 1))))
    one_tick(telemetry, clock, 400.0)
    assert "busy" not in states(telemetry, "cuda:0")
    assert states(telemetry, "cuda:1")["busy"] == 0.25


def test_a_request_that_reached_no_replica_is_counted(clock: Clock) -> None:
    telemetry = made(clock)
    telemetry.finished(finished((), status=503, error="overloaded", replica=""))
    telemetry.refused(503, "draining")
    text = telemetry.exposition().decode()
    assert 'multigpu_requests_total{error="overloaded",status="503"} 1.0' in text
    assert 'multigpu_refused_total{by="front_end",reason="draining"} 1.0' in text


def test_metrics_show_the_engines_own_memory_and_its_workers(clock: Clock) -> None:
    text = made(clock, now=lambda: snapshot(pool=(worker("pool-0", pid=2**22 + 1),))).exposition().decode()
    assert 'multigpu_process_resident_bytes{worker="engine"}' in text
    assert 'multigpu_process_resident_bytes{worker="replica-0"}' in text
    assert 'multigpu_process_resident_bytes{worker="pool-0"}' not in text  # a process that has gone


def test_metrics_have_what_is_settled(clock: Clock) -> None:
    telemetry = made(clock)
    one_tick(telemetry, clock, 102.5)
    assert 'multigpu_device_seconds_total{device="cuda:1",state="no_traffic"} 2.5' in telemetry.exposition().decode()


# Over time


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_cloudwatchs_line_comes_once_a_minute(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    telemetry = made(clock, MULTIGPU_CLOUDWATCH="1", MULTIGPU_ENDPOINT_NAME="mattes")
    telemetry.finished(finished())
    for second in range(1, 125):
        one_tick(telemetry, clock, 100.0 + second)
    told = lines(capfd)
    assert [line["Requests"] for line in told] == [1, 0]
    assert told[0]["EndpointName"] == "mattes"
    assert len(told[0]["QueueAgeSeconds"]) == 60
    assert told[0]["RequestSeconds"] == [pytest.approx(1.0, rel=0.1)]
    assert told[0]["DeviceBusyPercent"] == [pytest.approx(100 * 0.1 / 60, rel=0.01), pytest.approx(100 * 0.2 / 60, rel=0.01)]
    assert "RequestSeconds" not in told[1]


def test_by_default_cloudwatch_is_told_nothing(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    telemetry = made(clock)
    for second in range(1, 70):
        one_tick(telemetry, clock, 100.0 + second)
    assert lines(capfd) == []


async def run_until(telemetry: Telemetry, done: Callable[[], bool]) -> None:
    running = asyncio.create_task(telemetry.run())
    await asyncio.sleep(0)  # a task that is cancelled before it begins does nothing at all
    async with asyncio.timeout(10):
        while not done():
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


def test_it_settles_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TICK_S", 0.01)
    telemetry = made(placement=ON_CPU)
    asyncio.run(run_until(telemetry, lambda: states(telemetry, "cpu:0").get("no_traffic", 0) > 0.02))


def test_a_devices_time_begins_when_requests_can_come(clock: Clock) -> None:
    telemetry = made(clock, ON_CPU)
    clock.now = 160.0  # models have been loaded meanwhile
    asyncio.run(run_until(telemetry, lambda: True))
    one_tick(telemetry, clock, 161.0)
    assert states(telemetry, "cpu:0") == {"no_traffic": 1.0}


def test_a_second_that_fails_is_logged_and_the_next_one_counts(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_TICK_S", 0.01)
    failing = [True]

    def moment() -> Snapshot:
        if failing and failing.pop():
            raise KeyError("no such worker")
        return snapshot()

    telemetry = made(placement=ON_CPU, now=moment)
    asyncio.run(run_until(telemetry, lambda: not failing and bool(states(telemetry, "cpu:0"))))
    failed, _ = lines(capfd)
    assert (failed["event"], failed["error"]) == ("telemetry_failed", "KeyError")


def test_at_the_end_the_last_minute_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    telemetry = made(placement=ON_CPU, MULTIGPU_CLOUDWATCH="1")
    telemetry.refused(503, "overloaded")
    asyncio.run(run_until(telemetry, lambda: True))
    assert [line["Refused"] for line in lines(capfd) if "_aws" in line] == [1]


def test_at_the_end_the_log_says_what_the_devices_did_and_what_to_change(capfd: pytest.CaptureFixture[str]) -> None:
    telemetry = made(placement=ON_CPU)
    telemetry.finished(finished())
    asyncio.run(run_until(telemetry, lambda: True))
    (line,) = lines(capfd)
    assert line["event"] == "work_done"
    assert line["requests"] == 1
    assert list(line["busy_percent"]) == list(telemetry.summary()["devices"])
    assert line["advice"] == telemetry.summary()["advice"]


def test_at_the_end_the_last_spans_are_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    with Collector() as collector:
        serving = threading.Thread(target=collector.serve_forever, args=(0.01,))
        serving.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        telemetry = made(
            placement=ON_CPU, OTEL_EXPORTER_OTLP_ENDPOINT="http://elsewhere.invalid"
        )  # the SDK reads the environment itself
        telemetry.finished(finished())
        asyncio.run(run_until(telemetry, lambda: True))
        assert len(collector.spans) == 6
        collector.shutdown()
        serving.join()


def test_a_collector_that_does_not_answer_holds_the_end_up_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EXPORT_LIMIT_S", 0.1)
    with Collector() as collector:  # listens, and takes nothing
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "6")
        telemetry = made(placement=ON_CPU, OTEL_EXPORTER_OTLP_ENDPOINT="set")
        telemetry.finished(finished())
        began = time.monotonic()
        asyncio.run(run_until(telemetry, lambda: True))
        assert time.monotonic() - began < 4.0
        tracing = telemetry._tracing
    assert tracing is not None
    wait_until(lambda: not tracing.running, 20)
