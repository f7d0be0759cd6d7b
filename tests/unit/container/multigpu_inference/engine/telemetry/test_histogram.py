from __future__ import annotations

import pytest

from multigpu_inference.engine.telemetry.histogram import BATCH_SIZES, FINE_SECONDS, SECONDS, Histogram


def made_of(*values: float, bounds: tuple[float, ...] = (1.0, 2.0, 5.0)) -> Histogram:
    histogram = Histogram(bounds)
    for value in values:
        histogram.add(value)
    return histogram


def test_a_value_counts_under_the_first_bound_that_is_not_smaller() -> None:
    assert made_of(0.5, 1.0, 1.5, 5.0, 6.0).counts == [2, 1, 1, 1]


def test_cumulative_counts_end_with_all_values() -> None:
    assert made_of(0.5, 1.5, 1.7, 9.0).cumulative() == [1, 3, 3, 4]


def test_sum_count_and_mean() -> None:
    histogram = made_of(1.0, 2.0, 6.0)
    assert (histogram.total, histogram.count, histogram.mean) == (9.0, 3, 3.0)


def test_nothing_has_neither_mean_nor_quantile() -> None:
    assert (made_of().mean, made_of().quantile(0.5)) == (0.0, 0.0)


def test_a_quantile_lies_between_the_bounds_of_its_bucket() -> None:
    histogram = made_of(*[0.5] * 50, *[1.5] * 40, *[3.0] * 10)
    assert histogram.quantile(0.5) == pytest.approx(1.0)
    assert histogram.quantile(0.7) == pytest.approx(1.5)
    assert 2.0 < histogram.quantile(0.95) < 5.0


def test_beyond_the_last_bound_nothing_more_is_known() -> None:
    assert made_of(100.0).quantile(0.99) == 5.0


def test_fine_bounds_tell_a_quantile_to_a_tenth() -> None:
    values = [0.01 + 0.0001 * i for i in range(1000)]
    histogram = made_of(*values, bounds=FINE_SECONDS)
    for share in (0.01, 0.5, 0.9, 0.99):
        assert histogram.quantile(share) == pytest.approx(values[int(share * 1000)], rel=0.1)


@pytest.mark.parametrize("bounds", [SECONDS, FINE_SECONDS, BATCH_SIZES])
def test_bounds_rise(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


def test_fine_bounds_reach_from_a_millisecond_to_the_longest_time_limit() -> None:
    assert FINE_SECONDS[0] == 0.001
    assert FINE_SECONDS[-1] > 3600.0
