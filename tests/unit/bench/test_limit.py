from __future__ import annotations

import pytest

from bench.limit import limit_name
from bench.setup import make_setup
from bench.workload import WORKLOADS


@pytest.mark.parametrize(
    ("workload", "front_end", "limit"),
    [
        ("sim", "mms", "ideal"),
        ("sim-batched", "http", "ideal"),
        ("tiny", "mms", "bare loops"),
        ("medium", "http", "bare loops"),
        ("noop", "mms", "stock"),
        ("noop", "engine", "stock"),
        ("noop", "http", "mms"),
        ("echo", "http", "mms"),
        ("echo", "mms", "-"),  # multi-model-server alone answers ten bytes
    ],
)
def test_a_limit_by_what_is_served_and_through_what(workload: str, front_end: str, limit: str) -> None:
    assert limit_name(make_setup(WORKLOADS[workload], front_end=front_end)) == limit


def test_no_limit_where_none_is_asked_for() -> None:
    assert limit_name(make_setup(WORKLOADS["noop"], front_end="http", limit=False)) == "-"
