from __future__ import annotations

import math

import pytest

from bench.measure import median_index
from bench.percentiles import percentile


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (95, 95), (99, 99), (100, 100), (0, 1)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, expected: float) -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert percentile(values, percent) == expected


def test_the_p99_of_few_values_is_the_slowest() -> None:
    assert percentile([1.0, 9.0, 2.0], 99) == 9.0


def test_nothing_measured_has_no_percentile() -> None:
    assert math.isnan(percentile([], 50))


@pytest.mark.parametrize(("values", "index"), [([3.0], 0), ([0.9, 0.5, 0.7], 2), ([4.0, 1.0, 3.0, 2.0], 3)])
def test_the_median_window(values: list[float], index: int) -> None:
    assert median_index(values) == index
