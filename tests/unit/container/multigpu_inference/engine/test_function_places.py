from __future__ import annotations

import json

import pytest

from multigpu_inference.engine.function_places import FunctionPlaces
from multigpu_inference.messages import INPUT_FN, OUTPUT_FN, PREDICT_FN, STOCK_ORDER, TRANSFORM_FN, ScriptInfo

THREE = ScriptInfo(functions=frozenset({"model_fn", *STOCK_ORDER}))
TRANSFORM = ScriptInfo(functions=frozenset({"model_fn", TRANSFORM_FN}))
NEEDS_GPU = ScriptInfo(import_error="no CUDA")
IN_POOL = ((INPUT_FN,), (PREDICT_FN,), (OUTPUT_FN,))
IN_REPLICA: tuple[tuple[str, ...], ...] = ((), STOCK_ORDER, ())


@pytest.mark.parametrize(
    ("preprocess", "script", "expected", "unknown", "use_pool"),
    [
        ("auto", THREE, IN_POOL, True, True),
        ("pool", THREE, IN_POOL, False, True),
        ("replica", THREE, IN_REPLICA, False, False),
        ("auto", NEEDS_GPU, IN_REPLICA, False, False),
        ("auto", TRANSFORM, ((), (TRANSFORM_FN,), ()), False, False),
    ],
)
def test_what_is_settled_from_the_start(
    preprocess: str, script: ScriptInfo, expected: tuple[tuple[str, ...], ...], unknown: bool, use_pool: bool
) -> None:
    places = FunctionPlaces(preprocess, script)
    assert (places.steps, places.unknown, places.use_pool) == (expected, unknown, use_pool)


@pytest.mark.parametrize("input_in_pool", [True, False])
@pytest.mark.parametrize("output_in_pool", [True, False])
def test_every_function_runs_once_and_in_order_wherever_it_runs(input_in_pool: bool, output_in_pool: bool) -> None:
    places = FunctionPlaces("auto", THREE)
    places.settle(input_in_pool=input_in_pool, output_in_pool=output_in_pool)
    before, on_replica, after = places.steps
    assert before + on_replica + after == STOCK_ORDER
    assert ((INPUT_FN in before), (OUTPUT_FN in after)) == (input_in_pool, output_in_pool)
    assert not places.unknown


def test_what_several_trials_saw_adds_up() -> None:
    places = FunctionPlaces("auto", THREE)
    places.add_tensors(frozenset({".x"}), frozenset({".x", ".y"}))
    places.add_tensors(frozenset(), frozenset({".z"}))
    assert (places.device_paths, places.tensor_paths) == (frozenset({".x"}), frozenset({".x", ".y", ".z"}))


# Functions that are not worth a hop


def spans(preprocess_ms: float, postprocess_ms: float) -> list[tuple[str, float, float, int]]:
    named = (("preprocess_ms", preprocess_ms), ("predict_ms", 1000.0), ("postprocess_ms", postprocess_ms))
    return [(name, 5.0, 5.0 + milliseconds / 1e3, 1) for name, milliseconds in named]


def in_pool(places: FunctionPlaces) -> tuple[bool, bool]:
    return bool(places.steps.before), bool(places.steps.after)


def found_out(preprocess: str = "auto", *, input_in_pool: bool = True, output_in_pool: bool = True) -> FunctionPlaces:
    places = FunctionPlaces(preprocess, THREE)
    if places.unknown:
        places.settle(input_in_pool=input_in_pool, output_in_pool=output_in_pool)
    return places


def test_a_quick_function_comes_to_the_replica_after_a_while_and_a_slow_one_stays() -> None:
    places = found_out()
    places.note(spans(0.02, 8.0))
    assert in_pool(places) == (True, True)
    for _ in range(200):
        places.note(spans(0.02, 8.0))
    assert in_pool(places) == (False, True)
    assert places.steps.on_replica == (INPUT_FN, PREDICT_FN)
    assert places.use_pool


def test_both_may_come_and_the_pool_is_kept_for_when_they_go_back() -> None:
    places = found_out()
    for _ in range(200):
        places.note(spans(0.02, 0.05))
    assert (places.steps, places.use_pool) == (IN_REPLICA, True)


def test_a_function_goes_back_when_it_has_become_slow() -> None:
    places = found_out()
    for _ in range(200):
        places.note(spans(0.02, 8.0))
    for _ in range(20):
        places.note(spans(1.0, 8.0))
    assert places.steps == IN_POOL


def test_one_very_slow_call_sends_it_back_and_does_not_keep_it_away() -> None:
    places = found_out()
    for _ in range(200):
        places.note(spans(0.02, 8.0))
    places.note(spans(60_000.0, 8.0))
    assert in_pool(places) == (True, True)
    for _ in range(200):
        places.note(spans(0.02, 8.0))
    assert in_pool(places) == (False, True)


def test_between_the_two_bounds_nothing_moves() -> None:
    places = found_out()
    for _ in range(500):
        places.note(spans(0.15, 0.15))
    assert places.steps == IN_POOL
    for _ in range(500):
        places.note(spans(0.02, 0.02))
    for _ in range(500):
        places.note(spans(0.15, 0.15))
    assert places.steps == IN_REPLICA


@pytest.mark.parametrize("preprocess", ["pool", "replica"])
def test_what_was_asked_for_is_not_watched(preprocess: str) -> None:
    places = found_out(preprocess)
    before = places.steps
    for _ in range(500):
        places.note(spans(0.0, 0.0))
    for _ in range(500):
        places.note(spans(100.0, 100.0))
    assert places.steps == before


def test_a_function_that_cannot_leave_is_not_sent_to_the_pool() -> None:
    places = found_out(input_in_pool=False, output_in_pool=False)
    for _ in range(500):
        places.note(spans(100.0, 100.0))
    assert places.steps == IN_REPLICA


def test_a_move_is_said_once_with_its_reason(capfd: pytest.CaptureFixture[str]) -> None:
    places = found_out()
    for _ in range(500):
        places.note(spans(0.02, 8.0))
    said = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(event["event"], event["function"], event["runs_in"]) for event in said] == [
        ("function_moved", INPUT_FN, "replica")
    ]
    assert "ms on average" in said[0]["because"]


def test_with_stages_nothing_moves_to_where_requests_run_side_by_side() -> None:
    places = FunctionPlaces("auto", ScriptInfo(stages=2, functions=THREE.functions))
    places.settle(input_in_pool=True, output_in_pool=True)
    for _ in range(500):
        places.note(spans(0.0, 0.0))
    assert in_pool(places) == (True, True)
