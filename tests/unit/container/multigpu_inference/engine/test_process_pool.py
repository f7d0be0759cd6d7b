from __future__ import annotations

import dataclasses

import pytest

from multigpu_inference.config import Settings
from multigpu_inference.engine.process_pool import ProcessPool


@pytest.mark.parametrize(("timeout_s", "hang_after_s", "limit_s", "first_s"), [(20, 60, 20, 60), (100, 60, 60, 180)])
def test_a_fresh_pool_worker_does_not_have_as_long_for_its_first_task_as_a_model_may_take_to_load(
    timeout_s: float, hang_after_s: float, limit_s: float, first_s: float
) -> None:
    settings = dataclasses.replace(Settings.from_env({}).engine, startup_timeout_s=600, preprocess_timeout_s=timeout_s)
    patience = ProcessPool(settings, 2, hang_after_s)._patience
    assert (patience.limit_s(first=False), patience.limit_s(first=True)) == (limit_s, first_s)
