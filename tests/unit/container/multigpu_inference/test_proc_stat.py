from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from multigpu_inference import proc_stat
from support import wait_until


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"]) as process:
        yield process.pid
        process.kill()


def test_a_process_that_is_stopped_is_found_and_one_that_goes_on_is_not(sleeper: int) -> None:
    os.kill(sleeper, signal.SIGSTOP)
    wait_until(lambda: proc_stat.is_stopped(sleeper), 5)
    os.kill(sleeper, signal.SIGCONT)
    wait_until(lambda: not proc_stat.is_stopped(sleeper), 5)


def test_a_process_that_has_been_killed_is_ending_before_anybody_has_seen_its_end(sleeper: int) -> None:
    assert not proc_stat.is_ending(sleeper)
    os.kill(sleeper, signal.SIGKILL)
    wait_until(lambda: proc_stat.is_ending(sleeper), 5)
    stat = proc_stat.read_stat(sleeper)
    assert stat is not None  # nobody has collected it yet


def test_cpu_time_is_that_of_the_first_thread() -> None:
    before = proc_stat.read_stat(os.getpid())
    assert before is not None
    until = time.thread_time() + 0.05
    while time.thread_time() < until:
        pass
    after = proc_stat.read_stat(os.getpid())
    assert after is not None
    assert 0.02 <= after.cpu_s - before.cpu_s < 1
    assert after.state == "R"


def test_children_are_found(sleeper: int) -> None:
    assert sleeper in proc_stat.children_of(os.getpid())


def test_of_what_is_not_there_nothing_is_known() -> None:
    gone = 2**22 + 1  # above the kernel's highest
    assert proc_stat.read_stat(gone) is None
    assert not proc_stat.is_stopped(gone)
    assert proc_stat.is_ending(gone)
    assert proc_stat.children_of(gone) == []
