from __future__ import annotations

import pytest

from multigpu_inference.engine.telemetry.finished_request import HopSpan
from multigpu_inference.engine.telemetry.idle_causes import Timeline, idle_causes

# 0 ─ arrived 10 ─ preprocess 12..15 ─ copy 16..17 ─ stage 1 18..20 ─ stage 2 from 21
SPANS: tuple[HopSpan, ...] = (
    ("preprocess_ms", 12.0, 15.0, 1),
    ("copy_ms", 16.0, 17.0, 1),
    ("stage_1_ms", 18.0, 20.0, 1),
    ("stage_2_ms", 21.0, 30.0, 1),
    ("postprocess_ms", 31.0, 32.0, 1),
)
REQUEST = Timeline(20.0, 10.0, SPANS)


def charged(began: float, ended: float, timeline: Timeline | None = REQUEST, share: float = 1.0) -> dict[str, float]:
    return idle_causes(began, ended, timeline, share)


def of(*spans: HopSpan, arrived: float = 10.0) -> Timeline:
    return Timeline(0.0, arrived, spans)


@pytest.mark.parametrize(
    ("began", "ended", "expected"),
    [
        (5.0, 10.0, {"no_traffic": 5.0}),
        (10.0, 12.0, {"decode": 2.0}),
        (12.0, 15.0, {"decode": 3.0}),
        (15.0, 16.0, {"batch_wait": 1.0}),
        (16.0, 17.0, {"copy": 1.0}),
        (17.0, 18.0, {"batch_wait": 1.0}),
        (18.0, 20.0, {"other_stage": 2.0}),
        (20.0, 21.0, {"batch_wait": 1.0}),
        (8.0, 18.0, {"no_traffic": 2.0, "decode": 5.0, "batch_wait": 2.0, "copy": 1.0}),
        (13.0, 13.5, {"decode": 0.5}),
    ],
    ids=["before it came", "pool wait", "input_fn", "turn", "copy", "batch", "stage 1", "stage 2's batch", "all", "a part"],
)
def test_a_gap_is_charged_to_what_its_request_did(began: float, ended: float, expected: dict[str, float]) -> None:
    assert charged(began, ended) == pytest.approx(expected)


def test_the_wait_for_the_pool_is_split_as_the_pools_work_is() -> None:
    assert charged(10.0, 15.0, share=0.25) == pytest.approx({"decode": 0.5 + 3.0, "encode": 1.5})


def test_without_a_request_there_was_no_traffic() -> None:
    assert charged(5.0, 8.0, None) == {"no_traffic": 3.0}


def test_the_way_to_fetch_fn_and_fetch_fn_itself_are_fetch() -> None:
    timeline = of(("fetch_ms", 11.0, 14.0, 1), ("preprocess_ms", 15.0, 16.0, 1))
    assert charged(10.0, 16.0, timeline) == pytest.approx({"fetch": 4.0, "decode": 2.0})


def test_a_request_without_preprocessing_waits_for_its_turn() -> None:
    assert charged(10.0, 13.0, of(("predict_ms", 13.0, 14.0, 1))) == {"batch_wait": 3.0}


def test_what_comes_after_the_gap_does_not_count() -> None:
    assert charged(10.0, 11.0) == {"decode": 1.0}


def test_a_hop_within_another_is_charged_once() -> None:
    timeline = of(("preprocess_ms", 10.0, 14.0, 1), ("copy_ms", 11.0, 15.0, 1), ("predict_ms", 16.0, 17.0, 1))
    assert charged(10.0, 16.0, timeline) == pytest.approx({"decode": 4.0, "copy": 1.0, "batch_wait": 1.0})


def test_hops_may_be_told_in_any_order() -> None:
    assert charged(8.0, 21.0, Timeline(20.0, 10.0, SPANS[::-1])) == charged(8.0, 21.0)


def test_an_unknown_hop_is_work_elsewhere() -> None:
    assert charged(10.0, 13.0, of(("dream_ms", 11.0, 13.0, 1))) == {"batch_wait": 1.0, "other_stage": 2.0}


def test_while_a_replica_is_replaced_nothing_else_counts() -> None:
    assert idle_causes(8.0, 16.0, REQUEST, 1.0, [(9.0, 11.0), (14.0, 99.0)]) == pytest.approx(
        {"no_traffic": 1.0, "replacing": 4.0, "decode": 3.0}
    )
