from __future__ import annotations

import pytest

from multigpu_inference.engine.telemetry.statistics import Statistics
from unit.container.multigpu_inference.engine.telemetry.made import TWO_STAGES, finished


def counted(*requests: object) -> Statistics:
    statistics = Statistics()
    for request in requests:
        statistics.finished(request)  # type: ignore[arg-type]
    return statistics


def test_requests_are_counted_by_status_and_error() -> None:
    statistics = counted(finished(), finished(), finished(status=504, error="deadline_exceeded"))
    assert statistics.requests == {(200, ""): 2, (504, "deadline_exceeded"): 1}
    assert statistics.num_requests == 3


def test_server_errors_are_those_from_500_on() -> None:
    statistics = counted(*(finished(status=status, error="x") for status in (200, 404, 499, 500, 503)))
    assert statistics.num_server_errors == 2


def test_a_request_without_a_place_is_refused_by_the_engine() -> None:
    statistics = counted(
        *(finished((), status=503, error=code, replica="") for code in ("overloaded", "draining", "exhausted", "worker_died"))
    )
    assert statistics.refusals == {("overloaded", "engine"): 1, ("draining", "engine"): 1, ("exhausted", "engine"): 1}


def test_what_the_front_end_refuses_counts_as_a_request_too() -> None:
    statistics = Statistics()
    statistics.refused(413, "payload_too_large")
    statistics.refused(503, "overloaded")
    assert statistics.requests == {(413, "payload_too_large"): 1, (503, "overloaded"): 1}
    assert statistics.refusals == {("overloaded", "front_end"): 1}  # a body that is too large would be so on any machine
    assert statistics.request_seconds.count == 0


def test_what_the_front_end_has_refused_meanwhile_is_counted_together() -> None:
    statistics = Statistics()
    statistics.refused(503, "overloaded", 7)
    assert (statistics.num_requests, statistics.num_refusals) == (7, 7)


def test_what_was_not_begun_is_counted_by_why_and_what() -> None:
    statistics = Statistics()
    for reason in ("deadline_exceeded", "client_gone", "client_gone"):
        statistics.spared_before(reason, "stage_1")
    assert statistics.spared == {("deadline_exceeded", "stage_1"): 1, ("client_gone", "stage_1"): 2}


def test_names_that_user_code_may_have_made_up_do_not_pile_up() -> None:
    statistics = Statistics()
    for number in range(1000):
        statistics.spared_before("client_gone", f"made-up-{number}")
    assert len(statistics.spared) < 100
    assert sum(statistics.spared.values()) == 1000


def test_hops_are_timed_under_their_names_without_the_unit() -> None:
    statistics = counted(finished(), finished())
    assert set(statistics.hops) == {"queue", "preprocess", "copy", "stage_1", "stage_2", "postprocess"}
    assert statistics.hops["stage_2"].count == 2
    assert statistics.seconds_of("stage_2") == pytest.approx(0.4)
    assert statistics.seconds_of("fetch") == 0.0


def test_queue_is_all_that_no_hop_accounts_for() -> None:
    assert counted(finished()).seconds_of("queue") == pytest.approx(1.0 - 0.5)


def test_hops_that_overlap_leave_no_negative_queue() -> None:
    assert counted(finished((("predict_ms", 100.0, 101.0, 1), ("copy_ms", 100.0, 101.0, 1)))).seconds_of("queue") == 0.0


def test_a_request_takes_from_its_arrival_to_its_answer() -> None:
    assert counted(finished(arrived=100.0, ended=103.5)).request_seconds.total == 3.5


def test_replicas_and_bytes_are_counted() -> None:
    statistics = counted(finished(bytes_in=10, bytes_out=1), finished(bytes_in=5, replica="3"), finished((), replica=""))
    assert statistics.replica_requests == {"0": 1, "3": 1}
    assert (statistics.bytes_in, statistics.bytes_out) == (15, 1)


def test_batches_are_counted_by_hop_and_their_work_by_replica() -> None:
    statistics = Statistics()
    statistics.batch("0", "stage_1_ms", 0.1, 4)
    statistics.batch("1", "stage_1_ms", 0.2, 2)
    statistics.batch("1", "stage_1_ms", 0.3, 2)
    assert (statistics.batches["stage_1"].count, statistics.batches["stage_1"].total) == (3, 8)
    assert statistics.stage_seconds == {("0", "stage_1"): 0.1, ("1", "stage_1"): 0.5}


def test_invented_hops_share_one_place() -> None:
    statistics = counted(*(finished(((f"invented_{i}_ms", 100.0, 100.1, 1),)) for i in range(200)), finished(TWO_STAGES))
    assert len(statistics.hops) < 70
    assert statistics.hops["other"].count == 200 - 64 + 5
