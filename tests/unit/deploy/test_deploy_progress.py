from __future__ import annotations

import io

import pytest
from rich.console import Console

from deploy_progress import DeployProgress


def progress() -> tuple[DeployProgress, io.StringIO, list[float]]:
    out, now = io.StringIO(), [0.0]
    return DeployProgress(Console(file=out, soft_wrap=True), lambda: now[0]), out, now


def test_a_phase_says_how_long_it_took_and_what_changed_meanwhile() -> None:
    told, out, now = progress()
    with told.phase("waiting"):
        told.state("Creating")
        now[0] = 10.0
        told.state("Creating")
        told.log("a line with [brackets]")
        now[0] = 12.0
        told.state("InService")
    assert out.getvalue().splitlines() == [
        "     0 s   Creating",
        "    10 s   │ a line with [brackets]",
        "    12 s   InService",
        "    12 s ✓ waiting (12 s)",
    ]


def test_a_phase_that_fails_says_so() -> None:
    told, out, _ = progress()
    with pytest.raises(KeyError), told.phase("waiting"):
        raise KeyError
    assert "✗ waiting (0 s)" in out.getvalue()
