from __future__ import annotations

import pytest

from training.progress_bar import ProgressBar, describe


def test_time_left_is_reckoned_from_this_runs_pace() -> None:
    line = describe("trimap", step=60, steps=100, taken=10, elapsed_s=50, loss=0.5)
    assert "60/100" in line
    assert line.endswith("0:03:20 left")


def test_a_log_gets_the_first_and_the_last_step_as_lines(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar("trimap", 0, 3)
    for step in (1, 2, 3):
        bar.advance(step, 1.0)
    assert [line.split("] ")[1][:3] for line in capsys.readouterr().out.splitlines()] == ["1/3", "3/3"]
