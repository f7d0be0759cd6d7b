"""Five times what `tiny` can serve, for a minute: the goals of the benchmark's rows, through both front ends.

What a refusal costs is paid by the same two cores that serve: through multi-model-server, which takes each body in and hands it
to a worker first, less is left for those that are accepted. Its share is what was reached, not what was wished for.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import measure as measuring
from bench.overload import measure_overload
from bench.setup import make_setup
from bench.workload import find

pytestmark = [pytest.mark.soak, pytest.mark.timeout(400)]


@pytest.mark.parametrize(("front_end", "share"), [("http", 0.85), ("mms", 0.6)])
def test_five_times_too_much_for_a_minute(
    front_end: str, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "LOGS", tmp_path)
    setup = make_setup(find("tiny"), front_end=front_end, replicas=2, concurrency=(8,), seconds=60.0, warmup_s=2.0)
    found = measure_overload(setup)
    told = found.table()
    assert found.errors == {}, told
    assert found.not_200 == 0, told
    assert found.goodput_share >= share, told
    assert found.accepted_p99_ratio <= 2.0, told
    assert found.refused_p99_ms < 50.0, told
    assert found.recovered_s <= 2.0, told
