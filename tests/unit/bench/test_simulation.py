from __future__ import annotations

import pytest

from bench.simulation import BATCHED, UNBATCHED, Simulation


@pytest.mark.parametrize("devices", [1, 4, 8])
def test_the_ideal_is_a_device_that_is_always_held(devices: int) -> None:
    assert UNBATCHED.ideal_per_second(devices) == pytest.approx(devices * 1000 / 20)
    assert BATCHED.ideal_per_second(devices) == pytest.approx(devices * 8 * 1000 / 55)


def test_the_ideal_takes_the_best_batch() -> None:
    grows = Simulation(stage_1_ms=1.0, stage_1_item_ms=1.0, stage_2_ms=1.0, stage_2_item_ms=1.0, max_batch_size=3)
    assert grows.ideal_per_second(1) == pytest.approx(3 * 1000 / 8)


def test_a_lone_request_takes_all_sleeps() -> None:
    assert UNBATCHED.lone_ms() == 40.0
    assert BATCHED.lone_ms() == 40.0


def test_pool_workers_are_enough_for_the_ideal_rate() -> None:
    assert UNBATCHED.pool_workers(8) == 11  # 400 requests a second of 20 ms keep 8 busy
    assert UNBATCHED.pool_workers(1) == 2


def test_the_script_is_told_every_number() -> None:
    environment = BATCHED.environment(4, "/locks")
    assert environment["SIM_DEVICES"] == "4"
    assert environment["SIM_STAGE_2_ITEM_MS"] == "3"
    assert environment["SIM_MAX_BATCH_SIZE"] == "8"
    assert environment["SIM_DEVICE_DIR"] == "/locks"
