from __future__ import annotations

import signal

import pytest

from multigpu_inference.engine.death import BROKEN, Cause, OomKills, cause_of, read_oom_kills


@pytest.mark.parametrize(
    ("code", "killed_for", "out_of_memory", "cause"),
    [
        (0, None, False, Cause.INSIDE),
        (3, None, False, Cause.INSIDE),
        (7, None, True, Cause.INSIDE),
        (-signal.SIGSEGV, None, False, Cause.INSIDE),
        (-signal.SIGABRT, None, True, Cause.INSIDE),
        (-signal.SIGKILL, None, False, Cause.OUTSIDE),
        (-signal.SIGKILL, None, True, Cause.OUT_OF_MEMORY),
        (-signal.SIGTERM, None, True, Cause.OUTSIDE),
        (-signal.SIGHUP, None, False, Cause.OUTSIDE),
        (-signal.SIGINT, None, False, Cause.OUTSIDE),
        (-64, None, False, Cause.OUTSIDE),  # a real-time signal, which has no name
        (-signal.SIGKILL, Cause.HUNG, False, Cause.HUNG),
        (-signal.SIGKILL, Cause.HUNG, True, Cause.HUNG),
        (-signal.SIGKILL, Cause.OUTSIDE, False, Cause.OUTSIDE),
        (None, Cause.HUNG, False, Cause.HUNG),
        (None, None, False, Cause.OUTSIDE),
        (-signal.SIGSEGV, Cause.OUTSIDE, False, Cause.INSIDE),  # it was quicker than the engine's SIGKILL
        (7, Cause.HUNG, False, Cause.INSIDE),
        (BROKEN, None, False, Cause.BROKEN),
        (BROKEN, Cause.HUNG, True, Cause.BROKEN),
    ],
)
def test_why_a_process_ended(code: int | None, killed_for: Cause | None, out_of_memory: bool, cause: Cause) -> None:
    assert cause_of(code, killed_for, out_of_memory=out_of_memory) is cause


def test_what_counts_against_no_request() -> None:
    assert {cause for cause in Cause if cause.is_nobodys} == {Cause.OUTSIDE, Cause.BROKEN}


class Machine:
    """A clock and a kernel's counter."""

    def __init__(self) -> None:
        self.now = 100.0
        self.kills = 3
        self.readings = 0
        self.oom_kills = OomKills(self.read, lambda: self.now)

    def read(self) -> int:
        self.readings += 1
        return self.kills


def test_a_rise_of_the_kernels_counter_counts_for_who_worked_then() -> None:
    machine = Machine()
    assert not machine.oom_kills.since(0.0)
    machine.now, machine.kills = 110.0, 4
    assert machine.oom_kills.since(109.0)
    machine.now = 120.0
    assert machine.oom_kills.since(109.0)
    assert not machine.oom_kills.since(111.0)


def test_a_rise_is_dated_by_who_looks_in_between() -> None:
    machine = Machine()
    machine.now, machine.kills = 110.0, 4
    machine.oom_kills.look()
    machine.now = 120.0
    assert not machine.oom_kills.since(115.0)


def test_many_who_look_make_few_readings() -> None:
    machine = Machine()
    for _ in range(100):
        machine.now += 0.01
        machine.oom_kills.look()
    assert 1 <= machine.readings - 1 <= 2


def test_the_kernels_counter_can_be_read_here() -> None:
    assert read_oom_kills() >= 0
