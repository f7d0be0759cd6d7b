from __future__ import annotations

import pytest

from multigpu_inference.config import _OWN_NAMES
from multigpu_inference.engine.telemetry.advice import advice
from multigpu_inference.engine.telemetry.idle_causes import IDLE_CAUSES


def advised(*, pool_workers: float = 6, delay_ms: float = 0.0, **seconds: float) -> str:
    return advice("cuda:0", seconds, pool_workers=int(pool_workers), max_batch_delay_ms=delay_ms)


def test_a_busy_device_has_nothing_to_gain() -> None:
    assert advised(busy=91.0, decode=9.0).startswith("cuda:0 was busy for 91 % of the time: nothing to gain;")


def test_at_ninety_percent_there_still_is_something_to_gain() -> None:
    assert "nothing to gain" not in advised(busy=90.0, decode=10.0)


def test_a_second_of_observation_is_the_least() -> None:
    assert advised(busy=0.1, no_traffic=0.8) == "cuda:0: nothing to say yet."
    assert advised() == "cuda:0: nothing to say yet."


@pytest.mark.parametrize(
    ("cause", "names"),
    [
        ("no_traffic", {"MULTIGPU_NUM_REPLICAS"}),
        ("decode", {"MULTIGPU_PREPROCESS_WORKERS"}),
        ("encode", {"MULTIGPU_PREPROCESS_WORKERS"}),
        ("copy", {"MULTIGPU_NUM_REPLICAS"}),
        ("batch_wait", {"MULTIGPU_MAX_BATCH_SIZE", "MULTIGPU_NUM_REPLICAS"}),
        ("other_stage", {"MULTIGPU_PLACEMENT", "MULTIGPU_MAX_BATCH_SIZE"}),
    ],
)
def test_the_largest_cause_names_the_setting_to_change(cause: str, names: set[str]) -> None:
    text = advised(busy=40.0, **{"no_traffic": 10.0, "decode": 10.0, cause: 40.0})
    assert {name for name in _OWN_NAMES if name in text} >= names


@pytest.mark.parametrize("cause", IDLE_CAUSES)
def test_every_cause_gives_one_sentence_with_its_figures(cause: str) -> None:
    text = advised(**{"busy": 25.0, cause: 75.0})
    assert text.startswith("cuda:0 was busy for 25 % of the time; for 75 % ")
    assert text.endswith(".")
    assert text.count(". ") == 0
    assert "{" not in text


def test_no_traffic_asks_for_more_of_it() -> None:
    assert "more traffic would use it" in advised(busy=10.0, no_traffic=90.0)


def test_the_number_of_pool_workers_is_told() -> None:
    assert "MULTIGPU_PREPROCESS_WORKERS (now 6)" in advised(busy=10.0, decode=90.0)


def test_where_there_is_no_pool_its_size_is_not_the_matter() -> None:
    text = advised(pool_workers=0, busy=10.0, decode=90.0)
    assert "MULTIGPU_PREPROCESS_WORKERS" not in text
    assert "function_placed" in text


def test_a_wait_that_was_asked_for_can_be_made_shorter() -> None:
    assert "lower MULTIGPU_MAX_BATCH_DELAY_MS (now 20)" in advised(delay_ms=20.0, busy=10.0, batch_wait=90.0)


def test_decoding_and_encoding_count_together() -> None:
    text = advised(busy=30.0, decode=22.0, encode=18.0, no_traffic=30.0)
    assert (
        "for 40 % its next request was in input_fn or waited for a place there (input_fn 22 %, output_fn 18 %): raise" in text
    )
