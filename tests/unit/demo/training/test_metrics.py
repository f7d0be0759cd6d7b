from __future__ import annotations

import pytest
import torch

from training.metrics import gradient_error, intersection_over_union, mean_squared_error, sum_of_absolute_differences


def test_intersection_over_union_counts_one_class() -> None:
    drawn, wanted = torch.tensor([2, 2, 0, 1]), torch.tensor([2, 0, 2, 1])
    assert intersection_over_union(drawn, wanted, 2) == pytest.approx(1 / 3)
    assert intersection_over_union(drawn, wanted, 1) == 1


def test_intersection_over_union_of_nothing_is_whole() -> None:
    assert intersection_over_union(torch.zeros(4), torch.zeros(4), 2) == 1


def test_sad_is_in_thousands() -> None:
    assert sum_of_absolute_differences(torch.ones(50, 40), torch.full((50, 40), 0.5)) == pytest.approx(1.0)


def test_mse_looks_at_the_mask_alone() -> None:
    alpha, wanted = torch.tensor([0.0, 1.0, 0.5]), torch.tensor([1.0, 1.0, 0.0])
    assert mean_squared_error(alpha, wanted, torch.tensor([False, True, True])) == pytest.approx(0.125)
    assert mean_squared_error(alpha, wanted, torch.zeros(3, dtype=torch.bool)) == 0


def test_gradient_error_is_blind_to_an_offset() -> None:
    ramp = torch.linspace(0, 0.5, 32).expand(32, 32)
    assert gradient_error(ramp + 0.3, ramp) == pytest.approx(0, abs=1e-6)


def test_gradient_error_grows_with_the_square_of_the_slope() -> None:
    ramp, flat = torch.linspace(0, 0.5, 32).expand(32, 32), torch.zeros(32, 32)
    assert gradient_error(ramp, flat) > 0
    assert gradient_error(2 * ramp, flat) == pytest.approx(4 * gradient_error(ramp, flat), rel=1e-4)


def test_gradient_error_is_the_same_for_rows_and_columns() -> None:
    sharp, flat = (torch.arange(40) >= 20).float().expand(40, 40), torch.zeros(40, 40)
    assert gradient_error(sharp, flat) == pytest.approx(gradient_error(sharp.T.contiguous(), flat), rel=1e-4)


def test_gradient_error_of_a_step_against_nothing() -> None:
    # Beside a step the filter adds up one side of its derivative, whose squares add up to 1.
    sharp, flat = (torch.arange(40) >= 20).float().expand(40, 40), torch.zeros(40, 40)
    at = torch.arange(-4.0, 5)
    bell = torch.exp(-at.square() / (2 * 1.4**2))
    answers = [(at * bell)[at >= 20 - x].sum() * bell.sum() for x in range(40)]
    norm = (at * bell).square().sum() * bell.square().sum()
    assert gradient_error(sharp, flat) == pytest.approx(40 * float(sum(a**2 for a in answers) / norm) / 1000, rel=1e-3)
