from __future__ import annotations

import pytest

from multigpu_inference.engine.function_places import FunctionPlaces
from multigpu_inference.messages import INPUT_FN, OUTPUT_FN, PREDICT_FN, STOCK_ORDER, TRANSFORM_FN, ScriptInfo

THREE = ScriptInfo(functions=frozenset({"model_fn", *STOCK_ORDER}))
TRANSFORM = ScriptInfo(functions=frozenset({"model_fn", TRANSFORM_FN}))
NEEDS_GPU = ScriptInfo(import_error="no CUDA")
IN_POOL = ((INPUT_FN,), (PREDICT_FN,), (OUTPUT_FN,))
IN_REPLICA: tuple[tuple[str, ...], ...] = ((), STOCK_ORDER, ())


def steps(places: FunctionPlaces) -> tuple[tuple[str, ...], ...]:
    return places.before, places.on_replica, places.after


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
    assert (steps(places), places.unknown, places.use_pool) == (expected, unknown, use_pool)


@pytest.mark.parametrize("input_in_pool", [True, False])
@pytest.mark.parametrize("output_in_pool", [True, False])
def test_every_function_runs_once_and_in_order_wherever_it_runs(input_in_pool: bool, output_in_pool: bool) -> None:
    places = FunctionPlaces("auto", THREE)
    places.settle(input_in_pool=input_in_pool, output_in_pool=output_in_pool)
    assert places.before + places.on_replica + places.after == STOCK_ORDER
    assert ((INPUT_FN in places.before), (OUTPUT_FN in places.after)) == (input_in_pool, output_in_pool)
    assert not places.unknown


def test_what_several_trials_saw_adds_up() -> None:
    places = FunctionPlaces("auto", THREE)
    places.add_tensors(frozenset({".x"}), frozenset({".x", ".y"}))
    places.add_tensors(frozenset(), frozenset({".z"}))
    assert (places.device_paths, places.tensor_paths) == (frozenset({".x"}), frozenset({".x", ".y", ".z"}))
